// Draws of tokens on the CPU, as sampling.h says.
#ifndef SALAMANDER_KERNELS_CPU_SAMPLE_H_
#define SALAMANDER_KERNELS_CPU_SAMPLE_H_

#include <vector>

#include "absl/types/span.h"
#include "kernels/sampling.h"

namespace salamander::kernels {

// Of one row. `edits` are those of this row.
int32_t SampleLogits(absl::Span<const float> logits, const SampleRow& row, absl::Span<const LogitEdit> edits);

// Log-probability of `token`, and into `top` those of the top.size() likeliest, likeliest first; the lower id wins
// ties.
float LogprobsOf(absl::Span<const float> logits, int32_t token, absl::Span<TokenLogprob> top);

}  // namespace salamander::kernels

#endif  // SALAMANDER_KERNELS_CPU_SAMPLE_H_
