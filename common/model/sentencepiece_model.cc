#include "common/model/sentencepiece_model.h"

#include <functional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"

namespace salamander::model {
namespace {

// Field numbers of sentencepiece_model.proto.
namespace model_field {
constexpr uint64_t kPieces = 1, kTrainer = 2, kNormalizer = 3;
}
namespace piece_field {
constexpr uint64_t kText = 1, kType = 3;
}
namespace trainer_field {
constexpr uint64_t kModelType = 3, kWhitespaceAsSuffix = 24, kByteFallback = 35, kBosId = 41, kUnknownSurface = 44;
constexpr uint64_t kBpe = 2;
}  // namespace trainer_field
namespace normalizer_field {
constexpr uint64_t kCharacterMap = 2, kAddDummyPrefix = 3, kRemoveExtraWhitespaces = 4, kEscapeWhitespaces = 5;
}

struct Field {
  uint64_t number = 0;
  uint64_t value = 0;         // of varints
  size_t value_begin = 0;     // of varints: offset of the first byte
  size_t begin = 0, end = 0;  // of length-delimited fields
};

// Walks the fields of one message, [begin, end) of the file; offsets stay those of the file.
class FieldReader {
 public:
  FieldReader(std::string_view bytes, size_t begin, size_t end) : bytes_(bytes), at_(begin), end_(end) {}
  bool done() const { return at_ == end_; }

  absl::StatusOr<Field> Next() {
    Field field;
    ASSIGN_OR_RETURN(const uint64_t key, Varint());
    field.number = key >> 3;
    switch (key & 7) {
      case 0: {
        field.value_begin = at_;
        ASSIGN_OR_RETURN(field.value, Varint());
        return field;
      }
      case 1:
        RETURN_IF_ERROR(Skip(8));
        return field;
      case 2: {
        ASSIGN_OR_RETURN(const uint64_t length, Varint());
        field.begin = at_;
        RETURN_IF_ERROR(Skip(length));
        field.end = at_;
        return field;
      }
      case 5:
        RETURN_IF_ERROR(Skip(4));
        return field;
      default:
        return absl::InvalidArgumentError(absl::StrCat("unknown wire type ", key & 7, " at byte ", at_));
    }
  }

 private:
  absl::StatusOr<uint64_t> Varint() {
    uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      if (at_ == end_) return absl::InvalidArgumentError(absl::StrCat("ends within a number at byte ", at_));
      const auto byte = static_cast<uint8_t>(bytes_[at_++]);
      value |= static_cast<uint64_t>(byte & 0x7F) << shift;
      if (byte < 0x80) return value;
    }
    return absl::InvalidArgumentError(absl::StrCat("a number longer than 64 bits before byte ", at_));
  }

  absl::Status Skip(uint64_t count) {
    if (count > end_ - at_) {
      return absl::InvalidArgumentError(absl::StrCat("a field of ", count, " bytes at byte ", at_, " of ", end_));
    }
    at_ += count;
    return absl::OkStatus();
  }

  std::string_view bytes_;
  size_t at_, end_;
};

absl::Status ForEachField(std::string_view bytes, size_t begin, size_t end,
                          const std::function<absl::Status(const Field&)>& visit) {
  FieldReader reader(bytes, begin, end);
  while (!reader.done()) {
    ASSIGN_OR_RETURN(const Field field, reader.Next());
    RETURN_IF_ERROR(visit(field));
  }
  return absl::OkStatus();
}

absl::StatusOr<Piece> ParsePiece(std::string& bytes, const Field& message, bool (*is_special)(std::string_view)) {
  Piece piece;
  size_t type_at = 0;
  RETURN_IF_ERROR(ForEachField(bytes, message.begin, message.end, [&](const Field& field) {
    if (field.number == piece_field::kText) piece.text.assign(bytes, field.begin, field.end - field.begin);
    if (field.number == piece_field::kType) {
      const bool one_byte = static_cast<uint8_t>(bytes[field.value_begin]) == field.value;
      if (field.value < 1 || field.value > 6 || !one_byte) {
        return absl::InvalidArgumentError(absl::StrCat("piece '", piece.text, "' has unknown type ", field.value));
      }
      piece.type = static_cast<PieceType>(field.value);
      type_at = field.value_begin;
    }
    return absl::OkStatus();
  }));
  if (piece.type == PieceType::kUserDefined && is_special(piece.text)) {
    piece.type = PieceType::kControl;
    bytes[type_at] = static_cast<char>(PieceType::kControl);
  }
  return piece;
}

absl::Status ParseTrainer(SentencePieceModel& model, const Field& message) {
  return ForEachField(model.serialized, message.begin, message.end, [&](const Field& field) {
    if (field.number == trainer_field::kModelType) model.bpe = field.value == trainer_field::kBpe;
    if (field.number == trainer_field::kWhitespaceAsSuffix) model.whitespace_as_suffix = field.value != 0;
    if (field.number == trainer_field::kByteFallback) model.byte_fallback = field.value != 0;
    if (field.number == trainer_field::kBosId) model.bos_id = static_cast<int32_t>(field.value);
    if (field.number == trainer_field::kUnknownSurface) {
      model.unknown_surface.assign(model.serialized, field.begin, field.end - field.begin);
    }
    return absl::OkStatus();
  });
}

absl::Status ParseNormalizer(SentencePieceModel& model, const Field& message) {
  return ForEachField(model.serialized, message.begin, message.end, [&](const Field& field) {
    if (field.number == normalizer_field::kCharacterMap) model.has_character_map = field.end > field.begin;
    if (field.number == normalizer_field::kAddDummyPrefix) model.add_dummy_prefix = field.value != 0;
    if (field.number == normalizer_field::kRemoveExtraWhitespaces) model.remove_extra_whitespaces = field.value != 0;
    if (field.number == normalizer_field::kEscapeWhitespaces) model.escape_whitespaces = field.value != 0;
    return absl::OkStatus();
  });
}

}  // namespace

int32_t SentencePieceModel::Find(std::string_view text) const {
  for (size_t id = 0; id < pieces.size(); ++id) {
    if (pieces[id].text == text) return static_cast<int32_t>(id);
  }
  return -1;
}

absl::StatusOr<SentencePieceModel> ParseSentencePieceModel(std::string bytes,
                                                           bool (*is_special)(std::string_view text)) {
  SentencePieceModel model;
  model.serialized = std::move(bytes);
  RETURN_IF_ERROR(ForEachField(model.serialized, 0, model.serialized.size(), [&](const Field& field) -> absl::Status {
    if (field.number == model_field::kPieces) {
      ASSIGN_OR_RETURN(Piece piece, ParsePiece(model.serialized, field, is_special));
      model.pieces.push_back(std::move(piece));
    }
    if (field.number == model_field::kTrainer) return ParseTrainer(model, field);
    if (field.number == model_field::kNormalizer) return ParseNormalizer(model, field);
    return absl::OkStatus();
  }));
  if (model.pieces.empty()) return absl::InvalidArgumentError("the model has no pieces");
  if (model.bos_id >= static_cast<int64_t>(model.pieces.size())) {
    return absl::InvalidArgumentError(
        absl::StrCat("bos_id must be less than the ", model.pieces.size(), " pieces, got ", model.bos_id));
  }
  return model;
}

std::string WithoutDummyPrefix(const SentencePieceModel& model) {
  // A message field that appears twice is merged: this sets one value and leaves the others.
  const char override_prefix[] = {model_field::kNormalizer << 3 | 2, 2, normalizer_field::kAddDummyPrefix << 3, 0};
  return model.serialized + std::string(override_prefix, sizeof(override_prefix));
}

}  // namespace salamander::model
