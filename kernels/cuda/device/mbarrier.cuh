// Barriers in shared memory that threads arrive at without waiting (sm_90). PTX ISA, "mbarrier". A barrier's phases
// count from 0; waiting for phase n takes parity n % 2, and whoever waits must not fall a whole phase behind.
#ifndef SALAMANDER_KERNELS_CUDA_DEVICE_MBARRIER_CUH_
#define SALAMANDER_KERNELS_CUDA_DEVICE_MBARRIER_CUH_

#include <cstdint>

#include "kernels/cuda/device/mma.cuh"

namespace salamander::kernels::cuda {

// A phase is over after `arrivals`. By one thread, before a __syncthreads.
__device__ inline void InitBarrier(uint64_t* barrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;\n" ::"r"(SharedAddress(barrier)), "r"(arrivals) : "memory");
}
// What this thread did to memory before is visible to those who waited.
__device__ inline void ArriveAt(uint64_t* barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];\n" ::"r"(SharedAddress(barrier)) : "memory");
}
// Arrives once all CopyAsync16 of this thread so far are done.
__device__ inline void ArriveAfterCopies(uint64_t* barrier) {
  asm volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];\n" ::"r"(SharedAddress(barrier)) : "memory");
}
__device__ inline void WaitFor(uint64_t* barrier, int parity) {
  asm volatile(
      "{\n"
      ".reg .pred done;\n"
      "AGAIN:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      "@done bra DONE;\n"
      "bra AGAIN;\n"
      "DONE:\n"
      "}\n" ::"r"(SharedAddress(barrier)),
      "r"(parity)
      : "memory");
}

// What threads wrote to shared memory, and this thread knows of, becomes visible to its warpgroup products and bulk
// copies, which see memory through another proxy.
__device__ inline void FenceAsyncProxy() { asm volatile("fence.proxy.async.shared::cta;\n" ::: "memory"); }

}  // namespace salamander::kernels::cuda

#endif  // SALAMANDER_KERNELS_CUDA_DEVICE_MBARRIER_CUH_
