// Rows in pieces, one load or store where addresses permit, and float32 in registers: of bf16 eight columns, 16 bytes.
// A kernel that also reads or writes float32 rows takes four columns of both, 16 bytes of the wider. What the
// memory-bound kernels share.
#ifndef SALAMANDER_KERNELS_CUDA_DEVICE_PIECES_CUH_
#define SALAMANDER_KERNELS_CUDA_DEVICE_PIECES_CUH_

#include <cuda_bf16.h>

#include <cstdint>
#include <type_traits>

#include "kernels/cuda/device/mma.cuh"
#include "kernels/cuda/launch.h"

namespace salamander::kernels::cuda {

inline constexpr int kPieceCols = 8;
inline constexpr int kFloatPieceCols = 4;

constexpr int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Host: whether all pieces of rows of `cols` columns can be read and written as 16 bytes.
inline bool PiecesAligned(const void* data, int64_t stride, int64_t cols) {
  return reinterpret_cast<uintptr_t>(data) % 16 == 0 && stride % kPieceCols == 0 && cols % kPieceCols == 0;
}
inline bool Aligned16(const void* data) { return reinterpret_cast<uintptr_t>(data) % 16 == 0; }

__device__ inline void UnpackPair(uint32_t pair, float& low, float& high) {
  low = __uint_as_float(pair << 16);
  high = __uint_as_float(pair & 0xffff0000u);
}
__device__ inline void UnpackPiece(const uint4& bits, float (&x)[kPieceCols]) {
  const uint32_t pairs[4] = {bits.x, bits.y, bits.z, bits.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) UnpackPair(pairs[i], x[2 * i], x[2 * i + 1]);
}
__device__ inline void UnpackPiece(const uint2& bits, float (&x)[kFloatPieceCols]) {
  UnpackPair(bits.x, x[0], x[1]);
  UnpackPair(bits.y, x[2], x[3]);
}

__device__ inline uint4 PackPiece(const float (&x)[kPieceCols]) {
  return {PackBf16(x[0], x[1]), PackBf16(x[2], x[3]), PackBf16(x[4], x[5]), PackBf16(x[6], x[7])};
}
__device__ inline uint2 PackPiece(const float (&x)[kFloatPieceCols]) {
  return {PackBf16(x[0], x[1]), PackBf16(x[2], x[3])};
}

// Columns [col, col + kCols) of a row of `cols`; zeros past its end.
template <bool kAligned, int kCols>
__device__ inline void LoadPiece(const bf16* row, int64_t col, int64_t cols, float (&x)[kCols]) {
  if constexpr (kAligned) {
    using Bits = std::conditional_t<kCols == kPieceCols, uint4, uint2>;
    UnpackPiece(col < cols ? *reinterpret_cast<const Bits*>(row + col) : Bits{}, x);
  } else {
#pragma unroll
    for (int i = 0; i < kCols; ++i) x[i] = col + i < cols ? __bfloat162float(row[col + i]) : 0.0f;
  }
}
template <bool kAligned>
__device__ inline void LoadPiece(const float* row, int64_t col, int64_t cols, float (&x)[kFloatPieceCols]) {
  if constexpr (kAligned) {
    const float4 piece = col < cols ? *reinterpret_cast<const float4*>(row + col) : float4{};
    x[0] = piece.x, x[1] = piece.y, x[2] = piece.z, x[3] = piece.w;
  } else {
#pragma unroll
    for (int i = 0; i < kFloatPieceCols; ++i) x[i] = col + i < cols ? row[col + i] : 0.0f;
  }
}

template <bool kAligned, int kCols>
__device__ inline void StorePiece(bf16* row, int64_t col, int64_t cols, const float (&x)[kCols]) {
  if constexpr (kAligned) {
    using Bits = std::conditional_t<kCols == kPieceCols, uint4, uint2>;
    if (col < cols) *reinterpret_cast<Bits*>(row + col) = PackPiece(x);
  } else {
#pragma unroll
    for (int i = 0; i < kCols; ++i) {
      if (col + i < cols) row[col + i] = __float2bfloat16(x[i]);
    }
  }
}
template <bool kAligned>
__device__ inline void StorePiece(float* row, int64_t col, int64_t cols, const float (&x)[kFloatPieceCols]) {
  if constexpr (kAligned) {
    if (col < cols) *reinterpret_cast<float4*>(row + col) = {x[0], x[1], x[2], x[3]};
  } else {
#pragma unroll
    for (int i = 0; i < kFloatPieceCols; ++i) {
      if (col + i < cols) row[col + i] = x[i];
    }
  }
}

// Of float32 weights that no kernel of the stream writes.
template <bool kAligned, int kCols>
__device__ inline void LoadWeights(const float* weights, int64_t col, int64_t cols, float (&x)[kCols]) {
  if constexpr (kAligned) {
#pragma unroll
    for (int i = 0; i < kCols; i += 4) {
      const float4 part = col < cols ? __ldg(reinterpret_cast<const float4*>(weights + col + i)) : float4{};
      x[i] = part.x, x[i + 1] = part.y, x[i + 2] = part.z, x[i + 3] = part.w;
    }
  } else {
#pragma unroll
    for (int i = 0; i < kCols; ++i) x[i] = col + i < cols ? __ldg(weights + col + i) : 0.0f;
  }
}

template <int kCols>
__device__ inline float SumOfSquares(const float (&x)[kCols]) {
  float sum = 0;
#pragma unroll
  for (int i = 0; i < kCols; ++i) sum = fmaf(x[i], x[i], sum);
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
