// Barriers of some of a thread block's warps. PTX ISA, "bar, barrier". Barrier 0 is __syncthreads.
#ifndef SALAMANDER_KERNELS_CUDA_DEVICE_BARRIER_CUH_
#define SALAMANDER_KERNELS_CUDA_DEVICE_BARRIER_CUH_

namespace salamander::kernels::cuda {

// Waits until `threads` threads have come to barrier `id`, here or by BarrierArrive; what each of them did to memory
// before is visible after.
__device__ inline void BarrierSync(int id, int threads) {
  asm volatile("bar.sync %0, %1;\n" ::"r"(id), "r"(threads) : "memory");
}
// Counts for barrier `id` without waiting.
__device__ inline void BarrierArrive(int id, int threads) {
  asm volatile("bar.arrive %0, %1;\n" ::"r"(id), "r"(threads) : "memory");
}

}  // namespace salamander::kernels::cuda

#endif  // SALAMANDER_KERNELS_CUDA_DEVICE_BARRIER_CUH_
