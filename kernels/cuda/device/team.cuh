// A team: the thread blocks of a cluster that work on one thing (sm_90 on; a thread block alone elsewhere), and sums
// and largest values over its threads. The order of float sums is fixed.
#ifndef SALAMANDER_KERNELS_CUDA_DEVICE_TEAM_CUH_
#define SALAMANDER_KERNELS_CUDA_DEVICE_TEAM_CUH_

#include <cstdint>

#include "kernels/cuda/device/mma.cuh"

namespace salamander::kernels::cuda {

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

// All functions but those that say otherwise are called by all threads of the team. kBlocks 1: also without clusters.
template <int kBlocks, int kBlockThreads>
class Team {
 public:
  static constexpr int kWarps = kBlockThreads / 32;
  // Of one thread block, in shared memory.
  struct Shared {
    uint64_t warps[kWarps];
    uint64_t told[2];
  };

  __device__ explicit Team(Shared& shared) : shared_(shared) {}

  // Of this thread block in the team; any thread.
  __device__ static int rank() {
    if constexpr (kBlocks == 1) return 0;
    uint32_t rank;
    asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    return static_cast<int>(rank);
  }
  // All blocks of the team get here, and see what the others' shared memory had before. To be called last, too: a block
  // that has ended has no shared memory.
  __device__ static void Sync() {
    if constexpr (kBlocks == 1) {
      __syncthreads();
    } else {
#if __CUDA_ARCH__ >= 900
      asm volatile("barrier.cluster.arrive.aligned;\nbarrier.cluster.wait.aligned;\n" ::: "memory");
#else
      __trap();
#endif
    }
  }
  // Where another block of the team has what is at `mine` in this one's shared memory; any thread.
  template <class T>
  __device__ static const T* Of(const T* mine, int rank) {
    if constexpr (kBlocks == 1) return mine;
    uint64_t other = reinterpret_cast<uint64_t>(mine);
#if __CUDA_ARCH__ >= 900
    asm("mapa.u64 %0, %1, %2;" : "=l"(other) : "l"(other), "r"(rank));
#endif
    return reinterpret_cast<const T*>(other);
  }

  // Calls f(rank, x) with the x of every block's first thread, in the order of ranks.
  template <class F>
  __device__ void Tell(uint64_t x, F f) {
    turn_ ^= 1;  // the others may still read what was told before
    if (threadIdx.x == 0) shared_.told[turn_] = x;
    Sync();
    for (int rank = 0; rank < kBlocks; ++rank) f(rank, *Of(&shared_.told[turn_], rank));
  }

  __device__ uint64_t Max(uint64_t x) {
    for (int distance = 16; distance > 0; distance /= 2) x = max(x, __shfl_xor_sync(kAllLanes, x, distance));
    PutWarps(x, 0);
    for (int warp = 0; warp < kWarps; ++warp) x = max(x, shared_.warps[warp]);
    uint64_t most = 0;
    Tell(x, [&](int, uint64_t of_block) { most = max(most, of_block); });
    return most;
  }

  __device__ float Sum(float x) {
    PutWarps(__float_as_uint(WarpSum(x)), 0);
    float sum = 0;
    for (int warp = 0; warp < kWarps; ++warp) sum += __uint_as_float(static_cast<uint32_t>(shared_.warps[warp]));
    float total = 0;
    Tell(__float_as_uint(sum),
         [&](int, uint64_t of_block) { total += __uint_as_float(static_cast<uint32_t>(of_block)); });
    return total;
  }

  // Within the block: over the threads before this one; `total` over all. By all threads of the block.
  __device__ uint64_t BlockSumBefore(uint64_t x, uint64_t& total) {
    const uint64_t through = WarpSumThrough(x);
    PutWarps(through, 31);
    uint64_t before = through - x;
    total = 0;
    for (int warp = 0; warp < kWarps; ++warp) {
      if (warp == static_cast<int>(threadIdx.x / 32)) before += total;
      total += shared_.warps[warp];
    }
    return before;
  }

 private:
  // The value that a lane of every warp has.
  __device__ void PutWarps(uint64_t x, int lane) {
    __syncthreads();  // the values before are read
    if (threadIdx.x % 32 == lane) shared_.warps[threadIdx.x / 32] = x;
    __syncthreads();
  }

  Shared& shared_;
  int turn_ = 0;
};

}  // namespace salamander::kernels::cuda

#endif  // SALAMANDER_KERNELS_CUDA_DEVICE_TEAM_CUH_
