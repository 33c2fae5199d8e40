// The running best blocks of a token, in shared memory: a list that takes every block better than the worst it must
// keep as of its last cut, and is cut to the best when it may overflow. Random scores pass rarely (k·ln n of n blocks
// when every threshold is fresh), so cuts are rare.
#ifndef SALAMANDER_KERNELS_CUDA_SELECT_TOP_CUH_
#define SALAMANDER_KERNELS_CUDA_SELECT_TOP_CUH_

#include <cstdint>

#include "kernels/cuda/device/mma.cuh"
#include "kernels/cuda/select_plan.cuh"

namespace salamander::kernels::cuda {

// Orders blocks by value ≥ 0, the lower block first among equals: greater keys are better.
__device__ inline uint64_t BlockKey(float value, int block) {
  return static_cast<uint64_t>(__float_as_uint(value)) << 32 | ~static_cast<uint32_t>(block);
}
__device__ inline int KeyBlock(uint64_t key) { return static_cast<int>(~static_cast<uint32_t>(key)); }
__device__ inline float KeyValue(uint64_t key) { return __uint_as_float(static_cast<uint32_t>(key >> 32)); }

// A list of keys; all in shared memory.
struct BlockList {
  uint64_t* keys;
  int* count;
  float* to_beat;  // blocks after those in the list get in only with more

  // Any thread at any time; the list must have room.
  __device__ void Offer(float value, int block) const { keys[atomicAdd(count, 1)] = BlockKey(value, block); }
};

// Keys at or above `cut`, counted by one warp.
__device__ inline int CountKeys(const uint64_t* keys, int count, uint64_t cut) {
  int above = 0;
  for (int i = threadIdx.x % 32; i < count; i += 32) above += keys[i] >= cut;
  return __reduce_add_sync(kAllLanes, above);
}

// The key that `places` < count keys are at or above of, or one that separates them as well. Keys differ, so bisection
// finds one. By one warp.
__device__ inline uint64_t FindCut(const uint64_t* keys, int count, int places) {
  uint32_t least = ~0u, most = 0;
  for (int i = threadIdx.x % 32; i < count; i += 32) {
    const auto value = static_cast<uint32_t>(keys[i] >> 32);
    least = min(least, value);
    most = max(most, value);
  }
  // More than `places` keys are at or above low, fewer at or above high.
  uint64_t low = static_cast<uint64_t>(__reduce_min_sync(kAllLanes, least)) << 32;
  uint64_t high = (static_cast<uint64_t>(__reduce_max_sync(kAllLanes, most)) + 1) << 32;
  for (;;) {
    const uint64_t middle = low + (high - low) / 2;
    const int above = CountKeys(keys, count, middle);
    if (above == places) return middle;
    (above > places ? low : high) = middle;
  }
}

// Cuts the list to its best `places`, by one warp.
__device__ inline void CutList(const BlockList& list, int places) {
  const int lane = threadIdx.x % 32, count = *list.count;
  __syncwarp();
  if (count < places) return;
  const uint64_t cut = count > places ? FindCut(list.keys, count, places) : 0;
  uint32_t least = ~0u;
  int kept = 0;
  for (int first = 0; first < count; first += 32) {
    const uint64_t key = first + lane < count ? list.keys[first + lane] : 0;
    const bool keep = first + lane < count && key >= cut;
    const unsigned keeping = __ballot_sync(kAllLanes, keep);
    __syncwarp();
    if (keep) {
      list.keys[kept + __popc(keeping & ((1u << lane) - 1))] = key;
      least = min(least, static_cast<uint32_t>(key >> 32));
    }
    kept += __popc(keeping);
    __syncwarp();
  }
  least = __reduce_min_sync(kAllLanes, least);
  if (lane == 0) {
    *list.count = places;
    *list.to_beat = __uint_as_float(least);
  }
  __syncwarp();
}

// Writes a contested token's choice from its list, cut before. By one warp.
__device__ inline void WriteContested(const ChoicePlan& plan, const BlockList& list, int top_blocks, int32_t* out) {
  const int count = *list.count;
  WriteForced(plan, count, top_blocks, out);
  for (int i = threadIdx.x % 32; i < count; i += 32) {
    const int block = KeyBlock(list.keys[i]);
    int before = 0;
    for (int j = 0; j < count; ++j) before += KeyBlock(list.keys[j]) < block;
    out[plan.begin + before] = block;
  }
}

}  // namespace salamander::kernels::cuda

#endif  // SALAMANDER_KERNELS_CUDA_SELECT_TOP_CUH_
