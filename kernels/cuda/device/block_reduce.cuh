// Sums and largest values over the threads of a warp and of a thread block of kReduceThreads. The order of float sums
// is fixed.
#ifndef SALAMANDER_KERNELS_CUDA_DEVICE_BLOCK_REDUCE_CUH_
#define SALAMANDER_KERNELS_CUDA_DEVICE_BLOCK_REDUCE_CUH_

#include <cstdint>

#include "kernels/cuda/device/mma.cuh"

namespace salamander::kernels::cuda {

inline constexpr int kReduceThreads = 1024, kReduceWarps = kReduceThreads / 32;

template <class T>
__device__ T WarpSum(T x) {
  for (int distance = 16; distance > 0; distance /= 2) x += __shfl_xor_sync(kAllLanes, x, distance);
  return x;
}

// Over lanes up to this one.
__device__ inline uint64_t WarpSumThrough(uint64_t x) {
  const int lane = threadIdx.x % 32;
  for (int distance = 1; distance < 32; distance *= 2) {
    const uint64_t before = __shfl_up_sync(kAllLanes, x, distance);
    if (lane >= distance) x += before;
  }
  return x;
}

// One value of each warp. Functions with it are called by all threads, and may be called again at once.
union ReduceShared {
  uint64_t words[kReduceWarps];
  float floats[kReduceWarps];
};

__device__ inline uint64_t BlockMax(uint64_t x, ReduceShared& shared) {
  for (int distance = 16; distance > 0; distance /= 2) x = max(x, __shfl_xor_sync(kAllLanes, x, distance));
  __syncthreads();
  if (threadIdx.x % 32 == 0) shared.words[threadIdx.x / 32] = x;
  __syncthreads();
  for (int warp = 0; warp < kReduceWarps; ++warp) x = max(x, shared.words[warp]);
  return x;
}

__device__ inline float BlockSum(float x, ReduceShared& shared) {
  x = WarpSum(x);
  __syncthreads();
  if (threadIdx.x % 32 == 0) shared.floats[threadIdx.x / 32] = x;
  __syncthreads();
  return WarpSum(shared.floats[threadIdx.x % 32]);
}

// Over the threads before this one; `total` over all.
__device__ inline uint64_t BlockSumBefore(uint64_t x, uint64_t& total, ReduceShared& shared) {
  const int warp = threadIdx.x / 32;
  const uint64_t through = WarpSumThrough(x);
  __syncthreads();
  if (threadIdx.x % 32 == 31) shared.words[warp] = through;
  __syncthreads();
  uint64_t before = through - x;
  total = 0;
  for (int w = 0; w < kReduceWarps; ++w) {
    if (w == warp) before += total;
    total += shared.words[w];
  }
  return before;
}

}  // namespace salamander::kernels::cuda

#endif  // SALAMANDER_KERNELS_CUDA_DEVICE_BLOCK_REDUCE_CUH_
