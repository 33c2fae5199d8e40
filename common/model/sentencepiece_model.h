// What we need to know of a SentencePiece model file, read from its protobuf bytes without protobuf code: the schema's
// generated classes are private to SentencePiece.
#ifndef SALAMANDER_COMMON_MODEL_SENTENCEPIECE_MODEL_H_
#define SALAMANDER_COMMON_MODEL_SENTENCEPIECE_MODEL_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace salamander::model {

// Values of ModelProto.SentencePiece.Type.
enum class PieceType : uint8_t { kNormal = 1, kUnknown = 2, kControl = 3, kUserDefined = 4, kUnused = 5, kByte = 6 };

struct Piece {
  std::string text;
  PieceType type = PieceType::kNormal;
};

// Defaults are the schema's.
struct SentencePieceModel {
  std::vector<Piece> pieces;
  // ModelProto bytes for the processor, in which `MakeControl` pieces are never matched in text.
  std::string serialized;

  bool bpe = false;
  bool byte_fallback = false;
  bool whitespace_as_suffix = false;
  int32_t bos_id = 1;
  std::string unknown_surface = " \xE2\x81\x87 ";

  bool has_character_map = false;
  bool add_dummy_prefix = true;
  bool remove_extra_whitespaces = true;
  bool escape_whitespaces = true;

  // Id of the piece, or -1.
  int32_t Find(std::string_view text) const;
};

// Turns user-defined pieces whose text `is_special` accepts into control pieces: text that looks like one is then
// ordinary text. INVALID_ARGUMENT for bytes that are no ModelProto.
absl::StatusOr<SentencePieceModel> ParseSentencePieceModel(std::string bytes,
                                                           bool (*is_special)(std::string_view text));

// The same model for text in the middle of a run: without the space that is put in front of a text.
std::string WithoutDummyPrefix(const SentencePieceModel& model);

}  // namespace salamander::model

#endif  // SALAMANDER_COMMON_MODEL_SENTENCEPIECE_MODEL_H_
