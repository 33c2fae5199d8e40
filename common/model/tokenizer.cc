#include "common/model/tokenizer.h"

#include <algorithm>
#include <filesystem>
#include <map>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "common/base/status_macros.h"
#include "common/model/json_fields.h"
#include "common/model/read_file.h"
#include "common/model/run_encoder.h"
#include "common/model/sentencepiece_model.h"
#include "nlohmann/json.hpp"

namespace salamander::model {
namespace {

constexpr std::string_view kTurnStart = "<|im_start|>";
constexpr std::string_view kTurnEnd = "<|im_end|>";
constexpr std::string_view kNewline = "<nl>";
constexpr std::string_view kSpaceMark = "\xE2\x96\x81";  // ▁, SentencePiece's space

absl::string_view View(std::string_view text) { return {text.data(), text.size()}; }

bool IsSpecial(std::string_view piece) {
  return piece == kNewline || (piece.size() > 4 && piece.starts_with("<|") && piece.ends_with("|>"));
}

// Token text to id, for tokens that a checkpoint has beyond its SentencePiece vocabulary.
using AddedTokens = std::map<std::string, int32_t, std::less<>>;

// From tokenizer_config.json: {"added_tokens_decoder": {"73440": {"content": "<|im_end|>", …}, …}}.
absl::StatusOr<AddedTokens> ReadAddedTokens(const std::filesystem::path& folder) {
  const std::filesystem::path path = folder / "tokenizer_config.json";
  if (!std::filesystem::exists(path)) return AddedTokens{};
  ASSIGN_OR_RETURN(const std::string text, ReadFile(path.string()));
  const auto json = ParseJson(text);
  if (!json.is_object()) return absl::InvalidArgumentError(absl::StrCat(path.string(), " is no JSON object"));
  AddedTokens added;
  const auto decoder = json.find("added_tokens_decoder");
  if (decoder == json.end()) return added;
  if (!decoder->is_object()) {
    return absl::InvalidArgumentError(absl::StrCat(path.string(), ": added_tokens_decoder: expected an object"));
  }
  for (const auto& [key, token] : decoder->items()) {
    int32_t id = -1;
    const bool content = token.is_object() && token.contains("content") && token["content"].is_string();
    if (!absl::SimpleAtoi(key, &id) || id < 0 || !content) {
      return absl::InvalidArgumentError(
          absl::StrCat(path.string(), ": added_tokens_decoder maps an id to an object with \"content\", got ", key));
    }
    added.emplace(token["content"].get<std::string>(), id);
  }
  return added;
}

class SentencePieceTokenizer : public Tokenizer {
 public:
  SentencePieceTokenizer(SentencePieceModel model, const AddedTokens& added, std::unique_ptr<RunEncoder> encoder)
      : model_(std::move(model)), encoder_(std::move(encoder)), vocab_size_(std::ssize(model_.pieces)) {
    const auto find = [&](std::string_view text) {
      const int32_t piece = model_.Find(text);
      const auto found = added.find(text);
      return piece >= 0 || found == added.end() ? piece : found->second;
    };
    turn_start_ = find(kTurnStart);
    turn_end_ = find(kTurnEnd);
    newline_ = model_.Find(kNewline);
    for (const auto& [text, id] : added) vocab_size_ = std::max<int64_t>(vocab_size_, int64_t{id} + 1);
    model_.serialized.clear();  // only the encoder needed it
  }

  int64_t vocab_size() const override { return vocab_size_; }

  absl::StatusOr<std::vector<int32_t>> EncodeText(std::string_view text) const override {
    RETURN_IF_ERROR(CheckUtf8("text", text));
    std::vector<int32_t> ids = Begin(text.size());
    RETURN_IF_ERROR(Append(text, ids));
    return ids;
  }

  absl::StatusOr<std::vector<int32_t>> EncodeChat(const std::vector<ChatTurn>& turns) const override {
    RETURN_IF_ERROR(CheckCanChat());
    RETURN_IF_ERROR(CheckTurns(turns));
    size_t bytes = 0;
    for (const ChatTurn& turn : turns) bytes += turn.content.size();
    std::vector<int32_t> ids = Begin(bytes);
    for (const ChatTurn& turn : turns) {
      ids.push_back(turn_start_);
      RETURN_IF_ERROR(Append(turn.role + "\n" + turn.content, ids));
      ids.push_back(turn_end_);
      RETURN_IF_ERROR(Append("\n", ids));
    }
    ids.push_back(turn_start_);
    RETURN_IF_ERROR(Append("assistant\n", ids));
    return ids;
  }

  std::string TokenBytes(int32_t token) const override {
    if (token < 0 || token >= std::ssize(model_.pieces)) return "";
    if (token == newline_) return "\n";
    const Piece& piece = model_.pieces[token];
    switch (piece.type) {
      case PieceType::kControl:
        return "";
      case PieceType::kUnknown:
        return model_.unknown_surface;
      case PieceType::kByte:
        return ByteOf(piece.text);
      case PieceType::kNormal:
      case PieceType::kUserDefined:
      case PieceType::kUnused:
        return absl::StrReplaceAll(piece.text, {{View(kSpaceMark), " "}});
    }
    return "";
  }

  bool EndsEncodedRun(int32_t token) const override {
    if (!model_.add_dummy_prefix) return false;
    if (token == newline_ || token == turn_start_ || token == turn_end_) return true;
    return token >= 0 && token < std::ssize(model_.pieces) && model_.pieces[token].type == PieceType::kControl;
  }

 private:
  static absl::Status CheckUtf8(std::string_view field, std::string_view text) {
    const size_t at = FindInvalidUtf8(text);
    if (at == std::string_view::npos) return absl::OkStatus();
    return absl::InvalidArgumentError(absl::StrCat(View(field), " must be UTF-8; byte ", at, " is not"));
  }

  static absl::Status CheckTurns(const std::vector<ChatTurn>& turns) {
    if (turns.empty()) return absl::InvalidArgumentError("chat must have at least one message");
    for (size_t i = 0; i < turns.size(); ++i) {
      const std::string& role = turns[i].role;
      if (role != "system" && role != "user" && role != "assistant" && role != "tool") {
        return absl::InvalidArgumentError(absl::StrCat("role of chat message ", i,
                                                       " must be system, user, assistant or tool, got '",
                                                       ReplaceInvalidUtf8(role.substr(0, 64)), "'"));
      }
      RETURN_IF_ERROR(CheckUtf8(absl::StrCat("content of chat message ", i), turns[i].content));
    }
    return absl::OkStatus();
  }

  absl::Status CheckCanChat() const {
    for (const auto& [text, id] : {std::pair(kTurnStart, turn_start_), std::pair(kTurnEnd, turn_end_)}) {
      if (id < 0) {
        return absl::FailedPreconditionError(absl::StrCat("the model cannot chat: its vocabulary has no ", View(text)));
      }
    }
    return absl::OkStatus();
  }

  std::vector<int32_t> Begin(size_t text_bytes) const {
    std::vector<int32_t> ids;
    ids.reserve(text_bytes / 3 + 16);
    if (model_.bos_id >= 0) ids.push_back(model_.bos_id);
    return ids;
  }

  absl::Status Append(std::string_view text, std::vector<int32_t>& ids) const {
    if (newline_ < 0) return encoder_->Encode(text, ids);
    while (true) {
      const size_t end = text.find('\n');
      RETURN_IF_ERROR(encoder_->Encode(text.substr(0, end), ids));
      if (end == std::string_view::npos) return absl::OkStatus();
      ids.push_back(newline_);
      text.remove_prefix(end + 1);
    }
  }

  // The byte of a piece like "<0x0A>".
  static std::string ByteOf(std::string_view piece) {
    uint32_t value = 0;
    const bool parsed = piece.size() == 6 && absl::SimpleHexAtoi(View(piece.substr(1, 4)), &value);
    return parsed ? std::string(1, static_cast<char>(value)) : "";
  }

  SentencePieceModel model_;
  std::unique_ptr<RunEncoder> encoder_;
  int64_t vocab_size_;
  int32_t turn_start_, turn_end_, newline_;  // -1: the vocabulary has none
};

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> Tokenizer::Load(const std::string& folder) {
  const std::filesystem::path path = std::filesystem::path(folder) / "tokenizer.model";
  ASSIGN_OR_RETURN(std::string bytes, ReadFile(path.string()));
  absl::StatusOr<SentencePieceModel> model = ParseSentencePieceModel(std::move(bytes), IsSpecial);
  RETURN_IF_ERROR(Annotate(model.status(), path.string()));
  ASSIGN_OR_RETURN(const AddedTokens added, ReadAddedTokens(folder));
  absl::StatusOr<std::unique_ptr<RunEncoder>> encoder = RunEncoder::Create(*model);
  RETURN_IF_ERROR(Annotate(encoder.status(), path.string()));
  return std::make_unique<SentencePieceTokenizer>(*std::move(model), added, *std::move(encoder));
}

}  // namespace salamander::model
