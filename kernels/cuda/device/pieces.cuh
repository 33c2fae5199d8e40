// Rows of bf16 in pieces of eight columns: 16 bytes, one load or store where addresses permit, and float32 in
// registers. What the memory-bound kernels share.
#ifndef SALAMANDER_KERNELS_CUDA_DEVICE_PIECES_CUH_
#define SALAMANDER_KERNELS_CUDA_DEVICE_PIECES_CUH_

#include <cuda_bf16.h>

#include <cstdint>

#include "kernels/cuda/device/mma.cuh"
#include "kernels/cuda/launch.h"

namespace salamander::kernels::cuda {

inline constexpr int kPieceCols = 8;

constexpr int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Host: whether all pieces of rows of `cols` columns can be read and written as 16 bytes.
inline bool PiecesAligned(const void* data, int64_t stride, int64_t cols) {
  return reinterpret_cast<uintptr_t>(data) % 16 == 0 && stride % kPieceCols == 0 && cols % kPieceCols == 0;
}
inline bool Aligned16(const void* data) { return reinterpret_cast<uintptr_t>(data) % 16 == 0; }

__device__ inline void UnpackPiece(const uint4& bits, float (&x)[kPieceCols]) {
  const uint32_t pairs[4] = {bits.x, bits.y, bits.z, bits.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    x[2 * i] = __uint_as_float(pairs[i] << 16);
    x[2 * i + 1] = __uint_as_float(pairs[i] & 0xffff0000u);
  }
}

__device__ inline uint4 PackPiece(const float (&x)[kPieceCols]) {
  return {PackBf16(x[0], x[1]), PackBf16(x[2], x[3]), PackBf16(x[4], x[5]), PackBf16(x[6], x[7])};
}

// Columns [col, col + 8) of a row of `cols`; zeros past its end.
template <bool kAligned>
__device__ inline void LoadPiece(const bf16* row, int64_t col, int64_t cols, float (&x)[kPieceCols]) {
  if constexpr (kAligned) {
    UnpackPiece(col < cols ? *reinterpret_cast<const uint4*>(row + col) : uint4{}, x);
  } else {
#pragma unroll
    for (int i = 0; i < kPieceCols; ++i) x[i] = col + i < cols ? __bfloat162float(row[col + i]) : 0.0f;
  }
}

template <bool kAligned>
__device__ inline void StorePiece(bf16* row, int64_t col, int64_t cols, const float (&x)[kPieceCols]) {
  if constexpr (kAligned) {
    if (col < cols) *reinterpret_cast<uint4*>(row + col) = PackPiece(x);
  } else {
#pragma unroll
    for (int i = 0; i < kPieceCols; ++i) {
      if (col + i < cols) row[col + i] = __float2bfloat16(x[i]);
    }
  }
}

// The same of float32 weights that no kernel of the stream writes.
template <bool kAligned>
__device__ inline void LoadWeights(const float* weights, int64_t col, int64_t cols, float (&x)[kPieceCols]) {
  if constexpr (kAligned) {
    const bool inside = col < cols;
    const float4 a = inside ? __ldg(reinterpret_cast<const float4*>(weights + col)) : float4{};
    const float4 b = inside ? __ldg(reinterpret_cast<const float4*>(weights + col) + 1) : float4{};
    x[0] = a.x, x[1] = a.y, x[2] = a.z, x[3] = a.w;
    x[4] = b.x, x[5] = b.y, x[6] = b.z, x[7] = b.w;
  } else {
#pragma unroll
    for (int i = 0; i < kPieceCols; ++i) x[i] = col + i < cols ? __ldg(weights + col + i) : 0.0f;
  }
}

// What bf16 keeps of each.
__device__ inline void RoundPiece(float (&x)[kPieceCols]) { UnpackPiece(PackPiece(x), x); }

__device__ inline float SumOfSquares(const float (&x)[kPieceCols]) {
  float sum = 0;
#pragma unroll
  for (int i = 0; i < kPieceCols; ++i) sum = fmaf(x[i], x[i], sum);
  return sum;
}

// Sum over neighbouring `kLanes` lanes (a power of two), in all of them.
template <int kLanes>
__device__ inline float LanesSum(float x) {
#pragma unroll
  for (int distance = kLanes / 2; distance > 0; distance /= 2) x += __shfl_xor_sync(kAllLanes, x, distance);
  return x;
}

// Sum over the thread block (whole warps), in all its threads. Once a kernel: its shared memory is not used again.
__device__ inline float BlockSum(float x) {
  __shared__ float warps[32];
  x = LanesSum<32>(x);
  if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = x;
  __syncthreads();
  const unsigned lane = threadIdx.x % 32;
  return LanesSum<32>(lane < blockDim.x / 32 ? warps[lane] : 0.0f);
}

__device__ inline float Sigmoid(float x) { return 1.0f / (1.0f + __expf(-x)); }

}  // namespace salamander::kernels::cuda

#endif  // SALAMANDER_KERNELS_CUDA_DEVICE_PIECES_CUH_
