// A whole request in one process, no cluster: spans one after the other, then decode. What `salamander run` uses, and
// the yardstick for "the split does not matter".
#ifndef SALAMANDER_COMMON_ENGINE_LOCAL_SESSION_H_
#define SALAMANDER_COMMON_ENGINE_LOCAL_SESSION_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/engine/forward.h"
#include "common/engine/generation.h"

namespace salamander::engine {

struct LocalTiming {
  double prefill_seconds = 0;
  double first_step_seconds = 0;
  double decode_seconds = 0;  // of the tokens after the first
};

class LocalSession {
 public:
  static absl::StatusOr<std::unique_ptr<LocalSession>> Create(const Model* model, MemoryLedger* ledger,
                                                              int64_t span_tokens);

  // Blocks; calls back on this thread. `on_progress` (may be empty) gets prompt tokens done after each span; either
  // callback cancels by returning false (CANCELLED), which after the last token means nothing any more.
  // INVALID_ARGUMENT naming field, value and limit; RESOURCE_EXHAUSTED if the sequence does not fit the memory.
  absl::StatusOr<LocalTiming> Generate(absl::Span<const int32_t> prompt, const GenerationOptions& options,
                                       const model::Tokenizer* tokenizer,
                                       const std::function<bool(int64_t)>& on_progress,
                                       const std::function<bool(const GeneratedToken&)>& on_token);

 private:
  LocalSession() = default;
  // The residual stream at the prompt's last token.
  absl::StatusOr<std::vector<float>> Prefill(Sequence& sequence, absl::Span<const int32_t> prompt,
                                             const std::function<bool(int64_t)>& on_progress);

  const Model* model_ = nullptr;
  MemoryLedger* ledger_ = nullptr;
  int64_t span_tokens_ = 0;
  std::unique_ptr<Workspace> workspace_;
  std::unique_ptr<SpanActivations> activations_;
  std::unique_ptr<DecodeForward> decode_;
};

}  // namespace salamander::engine

#endif  // SALAMANDER_COMMON_ENGINE_LOCAL_SESSION_H_
