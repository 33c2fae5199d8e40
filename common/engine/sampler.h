// What a request asks of sampling, and what the device is told of it (kernels/sampling.h). Random numbers are
// counter-based (Philox4x32-10; Salmon et al., SC'11), keyed by (seed, position), so a sequence's tokens do not depend
// on its batch-mates or on being moved.
#ifndef SALAMANDER_COMMON_ENGINE_SAMPLER_H_
#define SALAMANDER_COMMON_ENGINE_SAMPLER_H_

#include <cstdint>
#include <unordered_map>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "kernels/sampling.h"

namespace salamander::engine {

// As SamplingOptions of inference.proto, all defaults resolved.
struct SamplingParams {
  float temperature = 1;
  float top_p = 1;
  int32_t top_k = 0;
  float min_p = 0;
  float repetition_penalty = 1;
  float presence_penalty = 0;
  float frequency_penalty = 0;
  std::vector<std::pair<int32_t, float>> logit_bias;
  uint64_t seed = 0;

  bool needs_prompt() const { return repetition_penalty != 1; }
};

// INVALID_ARGUMENT naming the field, its value and the limit. NaN is out of every range.
absl::Status CheckSamplingParams(const SamplingParams& params, int64_t vocab_size);

// Token counts that penalties look at.
struct TokenHistory {
  std::unordered_map<int32_t, int32_t> output_counts;
  std::unordered_map<int32_t, int32_t> prompt_counts;  // filled only when params.needs_prompt()
};

// One draw for each row of logits.
struct DrawRequests {
  std::vector<kernels::SampleRow> rows;
  std::vector<kernels::LogitEdit> edits;  // in the order of their rows

  // Order: repetition, presence and frequency penalties and bias; then greedy if temperature is 0 (lowest id wins
  // ties); else temperature, top-k, top-p, min-p, draw. `position` is the position the token will have in the sequence,
  // `logprobs` as in SampleRow.
  void Add(const SamplingParams& params, const TokenHistory& history, int64_t position, int32_t logprobs);
};

struct Draw {
  int32_t token = 0;
  float logprob = 0;                            // if asked for
  absl::Span<const kernels::TokenLogprob> top;  // likeliest first; the lower id wins ties
};

}  // namespace salamander::engine

#endif  // SALAMANDER_COMMON_ENGINE_SAMPLER_H_
