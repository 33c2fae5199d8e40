// Softmax attention of a warp's 16 rows, the query heads of one token, with a running maximum and sum (the online
// softmax of FlashAttention-2, arXiv 2307.08691).
#ifndef SALAMANDER_KERNELS_CUDA_ATTEND_ROWS_CUH_
#define SALAMANDER_KERNELS_CUDA_ATTEND_ROWS_CUH_

#include <cuda_bf16.h>

#include <cstdint>

#include "kernels/cuda/attend_blocks.cuh"
#include "kernels/cuda/device/mma.cuh"

namespace salamander::kernels::cuda {

inline constexpr float kBelowAllScores = -1e30f;  // finite: differences stay numbers

// Weights [16 × keys], an accumulator, as the A fragments of their product with values.
template <int kTiles>
__device__ inline void PackWeights(const float (&weights)[kTiles][4], uint32_t (&a)[kTiles / 2][4]) {
#pragma unroll
  for (int j = 0; j < kTiles; ++j) {
    a[j / 2][j % 2 * 2] = PackBf16(weights[j][0], weights[j][1]);
    a[j / 2][j % 2 * 2 + 1] = PackBf16(weights[j][2], weights[j][3]);
  }
}

// Fragments as in mma.cuh: this lane holds rows g = lane / 4 and g + 8.
template <int kDim>
struct AttendRows {
  uint32_t q[kDim / 16][4];
  float out[kDim / 8][4];  // sums of values so far, relative to 2^(scale · most)
  float most[2];           // running maximum of a row's scores
  float sum[2];            // this lane's part of the sum of weights

  // `queries` [group, kDim]: the heads of one token; null: an idle warp.
  __device__ void Start(const bf16* queries, int group) {
    const int row = threadIdx.x % 32 / 4, col = threadIdx.x % 4 * 2;
#pragma unroll
    for (int k = 0; k < kDim / 16; ++k) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int head = row + i % 2 * 8;
        const bool there = queries != nullptr && head < group;
        q[k][i] = there ? *reinterpret_cast<const uint32_t*>(queries + head * kDim + k * 16 + i / 2 * 8 + col) : 0;
      }
    }
#pragma unroll
    for (int n = 0; n < kDim / 8; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) out[n][i] = 0;
    }
    most[0] = most[1] = kBelowAllScores;
    sum[0] = sum[1] = 0;
  }

  // Scores of 8 · kTiles keys, of which the first `keys` (at least one) are seen, to weights relative to the running
  // maximum, which may rise: `out` must then be scaled by `factor`, which is said by returning true.
  template <int kTiles>
  __device__ bool Weigh(float (&scores)[kTiles][4], int keys, float scale, float (&factor)[2]) {
    if (keys < 8 * kTiles) {
#pragma unroll
      for (int j = 0; j < kTiles; ++j) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          if (8 * j + static_cast<int>(threadIdx.x) % 4 * 2 + i % 2 >= keys) scores[j][i] = kBelowAllScores;
        }
      }
    }
    float top[2] = {most[0], most[1]};
#pragma unroll
    for (int j = 0; j < kTiles; ++j) {
      top[0] = fmaxf(top[0], fmaxf(scores[j][0], scores[j][1]));
      top[1] = fmaxf(top[1], fmaxf(scores[j][2], scores[j][3]));
    }
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      top[r] = fmaxf(top[r], __shfl_xor_sync(kAllLanes, top[r], 1));
      top[r] = fmaxf(top[r], __shfl_xor_sync(kAllLanes, top[r], 2));
    }
    const bool rises = __any_sync(kAllLanes, top[0] > most[0] || top[1] > most[1]);
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      factor[r] = FastExp2((most[r] - top[r]) * scale);
      sum[r] *= factor[r];
      most[r] = top[r];
    }
#pragma unroll
    for (int j = 0; j < kTiles; ++j) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        scores[j][i] = FastExp2(fmaf(scores[j][i], scale, -most[i / 2] * scale));
        sum[i / 2] += scores[j][i];
      }
    }
    return rises;
  }

  __device__ void ScaleOut(const float (&factor)[2]) {
#pragma unroll
    for (int n = 0; n < kDim / 8; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) out[n][i] *= factor[i / 2];
    }
  }

  // Attends to kKeys keys of a block in shared memory from key `first` on, of which the first `keys` are seen.
  template <int kKeys>
  __device__ void Attend(uint32_t block, int first, int keys, float scale) {
    using Tile = BlockTile<kDim>;
    const int lane = threadIdx.x % 32, matrix = lane / 8;
    float scores[kKeys / 8][4] = {};
#pragma unroll
    for (int k = 0; k < kDim / 16; ++k) {
#pragma unroll
      for (int n = 0; n < kKeys / 16; ++n) {
        uint32_t b[4];  // keys 0-7 and 8-15, columns 0-7 and 8-15 of each
        LoadMatrix4(b, block + Tile::Offset(first + n * 16 + matrix / 2 * 8 + lane % 8, k * 2 + matrix % 2));
        MmaBf16(scores[2 * n], q[k], b[0], b[1]);
        MmaBf16(scores[2 * n + 1], q[k], b[2], b[3]);
      }
    }
    float factor[2];
    if (Weigh(scores, keys, scale, factor)) ScaleOut(factor);  // after a few blocks maxima rarely rise
    uint32_t weights[kKeys / 16][4];
    PackWeights(scores, weights);
#pragma unroll
    for (int k = 0; k < kKeys / 16; ++k) {
#pragma unroll
      for (int n = 0; n < kDim / 16; ++n) {
        uint32_t b[4];  // columns 0-7 and 8-15, keys 0-7 and 8-15 of each
        const int row = kBlock + first + k * 16 + matrix % 2 * 8 + lane % 8;
        LoadMatrix4Transposed(b, block + Tile::Offset(row, n * 2 + matrix / 2));
        MmaBf16(out[2 * n], weights[k], b[0], b[1]);
        MmaBf16(out[2 * n + 1], weights[k], b[2], b[3]);
      }
    }
  }

  // The sums of whole rows.
  __device__ void SumLanes() {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      sum[r] += __shfl_xor_sync(kAllLanes, sum[r], 1);
      sum[r] += __shfl_xor_sync(kAllLanes, sum[r], 2);
    }
  }

  // Writes out / sum to `to` [group, kDim]. All lanes of the warp; a token without any block attends to nothing.
  __device__ void Finish(bf16* to, int group) {
    SumLanes();
    const int row = threadIdx.x % 32 / 4, col = threadIdx.x % 4 * 2;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int head = row + r * 8;
      if (head >= group) continue;
      const float factor = sum[r] > 0 ? 1 / sum[r] : 0;
#pragma unroll
      for (int n = 0; n < kDim / 8; ++n) {
        *reinterpret_cast<uint32_t*>(to + head * kDim + n * 8 + col) =
            PackBf16(out[n][2 * r] * factor, out[n][2 * r + 1] * factor);
      }
    }
  }
};

}  // namespace salamander::kernels::cuda

#endif  // SALAMANDER_KERNELS_CUDA_ATTEND_ROWS_CUH_
