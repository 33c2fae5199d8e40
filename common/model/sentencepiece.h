// The SentencePiece processor, behind its plugin library.
#ifndef SALAMANDER_COMMON_MODEL_SENTENCEPIECE_H_
#define SALAMANDER_COMMON_MODEL_SENTENCEPIECE_H_

#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/model/sentencepiece_plugin.h"

namespace salamander::model {

// Owns one processor; the plugin stays loaded until the process ends. Thread-safe.
class SentencePiece {
 public:
  // `model` is a serialized ModelProto. FAILED_PRECONDITION if the plugin is missing, INVALID_ARGUMENT if the model is
  // not what SentencePiece accepts.
  static absl::StatusOr<std::unique_ptr<SentencePiece>> Open(std::string_view model);
  ~SentencePiece() { api_->close(processor_); }
  SentencePiece(const SentencePiece&) = delete;
  SentencePiece& operator=(const SentencePiece&) = delete;

  // The ids of `text`, appended to `ids`.
  absl::Status Encode(std::string_view text, std::vector<int32_t>& ids) const;

 private:
  SentencePiece(const SalamanderSentencePieceApi* api, SalamanderSentencePiece* processor)
      : api_(api), processor_(processor) {}

  const SalamanderSentencePieceApi* api_;
  SalamanderSentencePiece* processor_;
};

}  // namespace salamander::model

#endif  // SALAMANDER_COMMON_MODEL_SENTENCEPIECE_H_
