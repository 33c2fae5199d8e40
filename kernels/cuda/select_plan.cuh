// Stage 1, what a token may choose: which blocks are forced, which compete and for how many places. The device's form
// of cpu/block_plan.h, where it is shown that later blocks never matter and that competing blocks see their windows.
#ifndef SALAMANDER_KERNELS_CUDA_SELECT_PLAN_CUH_
#define SALAMANDER_KERNELS_CUDA_SELECT_PLAN_CUH_

#include <algorithm>
#include <cstdint>

#include "kernels/cuda/launch.h"

namespace salamander::kernels::cuda {

// Windows of `stride`, twice as long, that the query at `position` sees.
__host__ __device__ inline int VisibleWindows(int64_t position, int64_t stride) {
  return static_cast<int>(std::max<int64_t>(0, (position + 1) / stride - 1));
}

// Places of every contested token, whatever its position: with blocks to compete, no forced ones overlap.
inline int64_t CompetingPlaces(const SparseParams& params) {
  return params.top_blocks - params.init_blocks - params.local_blocks - 1;
}

struct ChoicePlan {
  __device__ ChoicePlan(const SparseParams& params, int64_t position) {
    own = static_cast<int>(position / kBlockTokens);
    begin = static_cast<int>(std::min<int64_t>(params.init_blocks, own + 1));
    end = static_cast<int>(std::max<int64_t>(begin, own - params.local_blocks));
    places = static_cast<int>(params.top_blocks - begin - (own + 1 - end));
  }
  // Some must lose, so blocks must be scored.
  __device__ bool contested() const { return places > 0 && end - begin > places; }

  int own;         // the block of the token
  int begin, end;  // competing blocks; those below begin, and from end to own, are forced
  int places;      // for competing blocks; ≤ 0 if forced ones take all
};

// Writes the forced blocks, ascending and padded with -1, around room for `chosen` competing ones at [begin, begin +
// chosen), by one warp.
__device__ inline void WriteForced(const ChoicePlan& plan, int chosen, int top_blocks, int32_t* out) {
  for (int i = threadIdx.x % 32; i < top_blocks; i += 32) {
    const int after = plan.end + i - plan.begin - chosen;
    if (i < plan.begin) {
      out[i] = i;
    } else if (i >= plan.begin + chosen) {
      out[i] = after <= plan.own ? after : -1;
    }
  }
}

// Writes the choice of a token that is not contested: no competing block, or all. By one warp.
__device__ inline void WriteUncontested(const ChoicePlan& plan, int top_blocks, int32_t* out) {
  const int chosen = plan.places > 0 ? plan.end - plan.begin : 0;
  WriteForced(plan, chosen, top_blocks, out);
  for (int i = threadIdx.x % 32; i < chosen; i += 32) out[plan.begin + i] = plan.begin + i;
}

}  // namespace salamander::kernels::cuda

#endif  // SALAMANDER_KERNELS_CUDA_SELECT_PLAN_CUH_
