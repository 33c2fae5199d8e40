// Row-wise kernels: one thread block a row, float32 arithmetic, bf16 in memory.
#include "kernels/cuda/launch.h"

namespace salamander::kernels::cuda {
namespace {

__global__ void AddBiasKernel(Rows y, const float* bias, int64_t cols) {
  bf16* row = y.data + blockIdx.x * y.stride;
  for (int64_t col = threadIdx.x; col < cols; col += blockDim.x) {
    row[col] = __float2bfloat16(__bfloat162float(row[col]) + bias[col]);
  }
}

}  // namespace

cudaError_t AddBias(Rows y, const float* bias, int64_t rows, int64_t cols, cudaStream_t stream) {
  AddBiasKernel<<<static_cast<unsigned>(rows), 256, 0, stream>>>(y, bias, cols);
  return cudaGetLastError();
}

}  // namespace salamander::kernels::cuda
