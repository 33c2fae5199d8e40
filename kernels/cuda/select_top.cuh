// The best of many blocks, kept by one warp in shared memory: a list that takes every block better than the worst it
// must keep as of its last cut, and is cut to the best when it may overflow. Random values pass rarely (k·ln n of n
// blocks when every threshold is fresh), so cuts are rare.
#ifndef SALAMANDER_KERNELS_CUDA_SELECT_TOP_CUH_
#define SALAMANDER_KERNELS_CUDA_SELECT_TOP_CUH_

#include <cstdint>

#include "kernels/cuda/device/mma.cuh"

namespace salamander::kernels::cuda {

// Of blocks, or pages. All functions by a whole warp, whose lanes have equal members.
class TopList {
 public:
  // Offers between two calls of MakeRoom.
  static constexpr int kOffers = 8;

  __host__ __device__ static int Capacity(int places) { return (2 * places + 31) / 32 * 32 + 32 * kOffers; }

  // `keys` has Capacity(places).
  __device__ TopList(uint64_t* keys, int places) : keys_(keys), places_(places) {}

  // Offers a block of each lane, ascending, and after those offered before. Values are ≥ 0; lower ones are no blocks.
  __device__ void Offer(float value, int block) {
    const unsigned better = __ballot_sync(kAllLanes, value > to_beat_);
    if (value > to_beat_) keys_[count_ + __popc(better & ((1u << threadIdx.x % 32) - 1))] = Key(value, block);
    count_ += __popc(better);
  }
  __device__ void MakeRoom() {
    if (count_ > Capacity(places_) - 32 * kOffers) Cut();
  }

  // Cuts the list to its best `places`, the lower of equal ones; blocks stay in ascending order.
  __device__ void Cut() {
    __syncwarp();
    if (count_ < places_) return;
    const int lane = threadIdx.x % 32;
    const uint64_t cut = count_ > places_ ? FindCut() : 0;
    uint32_t least = ~0u;
    int kept = 0;
    for (int first = 0; first < count_; first += 32) {
      const uint64_t key = first + lane < count_ ? keys_[first + lane] : 0;
      const bool keep = first + lane < count_ && key >= cut;
      const unsigned keeping = __ballot_sync(kAllLanes, keep);
      __syncwarp();  // a ballot orders no memory: other lanes have read what is overwritten here
      if (keep) {
        keys_[kept + __popc(keeping & ((1u << lane) - 1))] = key;
        least = min(least, static_cast<uint32_t>(key >> 32));
      }
      kept += __popc(keeping);
    }
    __syncwarp();
    count_ = places_;
    to_beat_ = __uint_as_float(__reduce_min_sync(kAllLanes, least));
  }

  __device__ int count() const { return count_; }
  __device__ int block(int i) const { return static_cast<int>(~static_cast<uint32_t>(keys_[i])); }
  // As of the last cut `places` blocks have at least this; -1 before.
  __device__ float to_beat() const { return to_beat_; }

 private:
  // Orders blocks by value, the lower block first among equals: greater keys are better.
  __device__ static uint64_t Key(float value, int block) {
    return static_cast<uint64_t>(__float_as_uint(value)) << 32 | ~static_cast<uint32_t>(block);
  }

  // A key that separates the best `places` < count from the others. Keys differ, so bisection finds one.
  __device__ uint64_t FindCut() const {
    const int lane = threadIdx.x % 32;
    uint32_t least = ~0u, most = 0;
    for (int i = lane; i < count_; i += 32) {
      const auto value = static_cast<uint32_t>(keys_[i] >> 32);
      least = min(least, value);
      most = max(most, value);
    }
    // More than `places` keys are at or above low, fewer at or above high.
    uint64_t low = static_cast<uint64_t>(__reduce_min_sync(kAllLanes, least)) << 32;
    uint64_t high = (static_cast<uint64_t>(__reduce_max_sync(kAllLanes, most)) + 1) << 32;
    for (;;) {
      const uint64_t middle = low + (high - low) / 2;
      int above = 0;
      for (int i = lane; i < count_; i += 32) above += keys_[i] >= middle;
      above = __reduce_add_sync(kAllLanes, above);
      if (above == places_) return middle;
      (above > places_ ? low : high) = middle;
    }
  }

  uint64_t* keys_;
  int places_;
  int count_ = 0;
  float to_beat_ = -1;
};

}  // namespace salamander::kernels::cuda

#endif  // SALAMANDER_KERNELS_CUDA_SELECT_TOP_CUH_
