#include "common/model/run_encoder.h"

#include "common/base/status_macros.h"
#include "common/model/utf8.h"

namespace salamander::model {
namespace {

constexpr size_t kPartBytes = 2048;                      // cut at the first chance after this many
constexpr std::string_view kSpaceMark = "\xE2\x96\x81";  // ▁

bool Matched(const Piece& piece) { return piece.type != PieceType::kControl && piece.type != PieceType::kUnknown; }

bool Printable(char byte) { return byte > ' ' && byte < 0x7F; }

std::string_view FirstCharacter(std::string_view text) { return text.substr(0, NextUtf8(text).bytes); }

bool SpansWords(const Piece& piece) {
  return piece.text.find(' ') != std::string::npos || piece.text.find(kSpaceMark, 1) != std::string::npos;
}

std::set<std::string, std::less<>> CharactersAfterNewline(const SentencePieceModel& model) {
  std::set<std::string, std::less<>> characters;
  for (const Piece& piece : model.pieces) {
    if (!Matched(piece)) continue;
    const std::string_view text = piece.text;
    for (size_t at = text.find('\n'); at != text.npos && at + 1 < text.size(); at = text.find('\n', at + 1)) {
      const std::string_view character = FirstCharacter(text.substr(at + 1));
      characters.emplace(character == kSpaceMark ? " " : character);
    }
  }
  return characters;
}

}  // namespace

RunEncoder::Cut RunEncoder::ChooseCut(const SentencePieceModel& model) {
  if (!model.bpe || model.whitespace_as_suffix || !model.escape_whitespaces) return Cut::kNone;
  if (model.add_dummy_prefix && model.remove_extra_whitespaces) {
    for (const Piece& piece : model.pieces) {
      if (Matched(piece) && SpansWords(piece)) return Cut::kNone;
    }
    return Cut::kSpaces;
  }
  // Without bytes to fall back to, neighbouring unknown characters become one token: a cut could part them.
  const bool newline_known = model.byte_fallback || model.Find("\n") >= 0;
  if (!model.has_character_map && !model.remove_extra_whitespaces && newline_known) return Cut::kNewlines;
  return Cut::kNone;
}

absl::StatusOr<std::unique_ptr<RunEncoder>> RunEncoder::Create(const SentencePieceModel& model) {
  std::unique_ptr<RunEncoder> encoder(new RunEncoder);
  encoder->cut_ = ChooseCut(model);
  ASSIGN_OR_RETURN(encoder->first_, SentencePiece::Open(model.serialized));
  if (encoder->cut_ == Cut::kNewlines) {
    encoder->after_newline_ = CharactersAfterNewline(model);
    ASSIGN_OR_RETURN(encoder->rest_, SentencePiece::Open(WithoutDummyPrefix(model)));
  }
  return encoder;
}

absl::Status RunEncoder::Encode(std::string_view text, std::vector<int32_t>& ids) const {
  const SentencePiece* processor = first_.get();
  while (!text.empty()) {
    const Part part = FirstPart(text);
    RETURN_IF_ERROR(processor->Encode(text.substr(0, part.end), ids));
    text.remove_prefix(part.next);
    if (rest_ != nullptr) processor = rest_.get();
  }
  return absl::OkStatus();
}

RunEncoder::Part RunEncoder::FirstPart(std::string_view text) const {
  for (size_t at = kPartBytes; at + 1 < text.size(); ++at) {
    switch (cut_) {
      case Cut::kNone:
        return {text.size(), text.size()};
      case Cut::kSpaces:
        if (text[at] == ' ' && Printable(text[at - 1]) && Printable(text[at + 1])) return {at, at + 1};
        break;
      case Cut::kNewlines:
        if (text[at] == '\n' && !NewlineBinds(text.substr(at + 1))) return {at + 1, at + 1};
        break;
    }
  }
  return {text.size(), text.size()};
}

bool RunEncoder::NewlineBinds(std::string_view next) const { return after_newline_.contains(FirstCharacter(next)); }

}  // namespace salamander::model
