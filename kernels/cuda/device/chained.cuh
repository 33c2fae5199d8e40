// Programmatic dependent launch (CUDA C++ Programming Guide): a kernel's thread blocks start while the last ones of the
// kernel before it in the stream run, so that steps of many short kernels do not pay each launch's latency. Captured
// into a graph, it becomes a programmatic edge.
//
// A kernel launched so must call WaitForPrevious, in every thread block, before it touches anything that an earlier
// kernel writes or reads; before that, only what no kernel writes: weights, and lists of sequences and their pages,
// which copies bring. The compiler may move loads it takes for constant (__ldg, __restrict__) over the call: what
// earlier kernels wrote is to be read by plain loads.
#ifndef SALAMANDER_KERNELS_CUDA_DEVICE_CHAINED_CUH_
#define SALAMANDER_KERNELS_CUDA_DEVICE_CHAINED_CUH_

#include <cuda_runtime_api.h>

#include <cstddef>
#include <utility>

namespace salamander::kernels::cuda {

// Until all earlier kernels have ended and what they wrote is visible.
__device__ inline void WaitForPrevious() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;\n" ::: "memory");
#endif
}

// The next kernel may start once all thread blocks of this one have said so. It still waits for this one's end.
__device__ inline void AllowNext() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;\n" ::: "memory");
#endif
}

// Brings 128 bytes to the L2 cache, which every multiprocessor reads through: also before WaitForPrevious, whatever
// earlier kernels still write there.
__device__ inline void PrefetchL2(const void* data) { asm volatile("prefetch.global.L2 [%0];\n" ::"l"(data)); }

template <class... Params, class... Args>
cudaError_t LaunchChained(void (*kernel)(Params...), dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t stream,
                          Args&&... args) {
  // Code of older architectures does not wait, not even on a newer card.
  cudaFuncAttributes attributes;
  if (const cudaError_t error = cudaFuncGetAttributes(&attributes, kernel); error != cudaSuccess) return error;
  cudaLaunchAttribute chained = {};
  chained.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  chained.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream;
  config.attrs = &chained;
  config.numAttrs = attributes.ptxVersion >= 90 ? 1 : 0;
  return cudaLaunchKernelEx(&config, kernel, Params(std::forward<Args>(args))...);
}
template <class... Params, class... Args>
cudaError_t LaunchChained(void (*kernel)(Params...), dim3 grid, dim3 block, cudaStream_t stream, Args&&... args) {
  return LaunchChained(kernel, grid, block, size_t{0}, stream, std::forward<Args>(args)...);
}

}  // namespace salamander::kernels::cuda

#endif  // SALAMANDER_KERNELS_CUDA_DEVICE_CHAINED_CUH_
