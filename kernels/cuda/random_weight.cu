// Weights that were never trained, made where they are needed.
#include "kernels/cuda/launch.h"
#include "kernels/random_weight.h"

namespace salamander::kernels::cuda {
namespace {

__global__ void FillRandomKernel(bf16* weight, int64_t count, uint64_t seed, float scale) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += step) {
    weight[i] = __float2bfloat16(RandomWeight(seed, i, scale));
  }
}

}  // namespace

cudaError_t FillRandom(bf16* weight, int64_t rows, int64_t cols, uint64_t seed, cudaStream_t stream) {
  if (rows == 0 || cols == 0) return cudaSuccess;
  FillRandomKernel<<<1024, 256, 0, stream>>>(weight, rows * cols, seed, RandomWeightScale(cols));
  return cudaGetLastError();
}

cudaError_t CheckDeviceCode() {
  cudaFuncAttributes attributes;
  return cudaFuncGetAttributes(&attributes, FillRandomKernel);
}

}  // namespace salamander::kernels::cuda
