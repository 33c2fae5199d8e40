// Encodes one run of text at the same speed whatever its length.
//
// SentencePiece keeps a heap and a linked list over the whole of a text, which leave the caches beyond some ten KB (3.3
// MB/s by lines, 0.7 MB/s for 3 MB at once). So a run is cut into parts, only where the parts' ids, put together, are
// those of the whole. BPE merges two neighbours only into a piece of the vocabulary; so across a place that no piece
// spans nothing is ever merged, and what is merged on one side does not depend on the other.
#ifndef SALAMANDER_COMMON_MODEL_RUN_ENCODER_H_
#define SALAMANDER_COMMON_MODEL_RUN_ENCODER_H_

#include <cstdint>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/model/sentencepiece.h"
#include "common/model/sentencepiece_model.h"

namespace salamander::model {

// Thread-safe.
class RunEncoder {
 public:
  static absl::StatusOr<std::unique_ptr<RunEncoder>> Create(const SentencePieceModel& model);

  // Appends the ids of `text`, which is UTF-8: those that SentencePiece gives for it as a whole.
  absl::Status Encode(std::string_view text, std::vector<int32_t>& ids) const;

 private:
  enum class Cut {
    kNone,
    // At a space between two printable ASCII characters. The model makes any run of white space one ▁ in front of the
    // next word and puts one in front of a text; no piece has a ▁ after its first character.
    kSpaces,
    // Behind a newline, unless some piece has a newline in front of the character that follows. The text is encoded as
    // it is, byte by byte where it must be.
    kNewlines,
  };

  RunEncoder() = default;
  static Cut ChooseCut(const SentencePieceModel& model);
  // End of the part of `text` that begins it, and the begin of the rest.
  struct Part {
    size_t end, next;
  };
  Part FirstPart(std::string_view text) const;
  bool NewlineBinds(std::string_view next) const;

  Cut cut_ = Cut::kNone;
  std::set<std::string, std::less<>> after_newline_;  // characters that follow a newline in some piece
  std::unique_ptr<SentencePiece> first_;              // of the first part
  std::unique_ptr<SentencePiece> rest_;               // of later parts; null: as the first
};

}  // namespace salamander::model

#endif  // SALAMANDER_COMMON_MODEL_RUN_ENCODER_H_
