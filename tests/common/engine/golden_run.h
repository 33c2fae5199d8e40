// A golden case's prompt and continuation run on some device, and what is compared of it.
#ifndef SALAMANDER_TESTS_COMMON_ENGINE_GOLDEN_RUN_H_
#define SALAMANDER_TESTS_COMMON_ENGINE_GOLDEN_RUN_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "tests/common/engine/golden_case.h"
#include "tests/common/engine/tapped_ops.h"

namespace salamander::engine {

// A case on a device whose block choices can be tapped.
struct TappedCase {
  TappedCase(const std::string& name, std::unique_ptr<kernels::Ops> device);

  TappedOps* ops;  // of `golden`
  std::unique_ptr<GoldenCase> golden;
};

using Logits = std::vector<std::vector<float>>;  // of each step

struct Outcome {
  // What a prompt leaves: key.L, value.L and state.L of layer L, as the golden data name and lay them out.
  std::map<std::string, std::vector<float>> context;
  Logits logits;
};

// The oracle's outcome of the prompt (first token's logits) and of the whole continuation (no context).
Outcome GoldenPrefill(const GoldenCase& golden);
Logits GoldenDecode(const GoldenCase& golden);

// The prompt in spans of `span_tokens`.
absl::StatusOr<Outcome> RunPrefill(GoldenCase& golden, int64_t span_tokens);

// The golden continuation on `copies` sequences at once after the prompt, each step in a batch of all, which are at
// most `max_batch`; the logits of the last copy.
absl::StatusOr<Logits> RunDecode(GoldenCase& golden, int64_t copies, int64_t max_batch);

}  // namespace salamander::engine

#endif  // SALAMANDER_TESTS_COMMON_ENGINE_GOLDEN_RUN_H_
