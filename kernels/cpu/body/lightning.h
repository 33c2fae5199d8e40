// Lightning attention of one head (Lightning Attention-2, arXiv 2401.04658, section 3.2): inside a chunk as masked
// matrix products, between chunks through the state.
//
// With rows i, j of a chunk of n tokens and λ the decay:
//   out_i = scale · ( λ^(i+1) q_i S  +  Σ_{j ≤ i} λ^(i-j) (q_i · k_j) v_j )
//   S     = λ^n S + Σ_j λ^(n-1-j) k_j v_jᵀ
// All powers are at most 1, so nothing overflows however fast the head forgets.
#ifndef SALAMANDER_KERNELS_CPU_BODY_LIGHTNING_H_
#define SALAMANDER_KERNELS_CPU_BODY_LIGHTNING_H_

#include <cstdint>

#include "kernels/cpu/body/gemm.h"
#include "kernels/cpu/body/math.h"
#include "kernels/cpu/body/transpose.h"
#include "kernels/cpu/kernel_table.h"

namespace salamander::kernels::body {

// A chunk's rows are spread over a wide fused projection; packed, they stay in the first cache.
template <class V>
void CopyRows(Rows from, int64_t rows, int64_t cols, float* to) {
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t i = 0; i < cols; i += V::kLanes) V::Store(to + r * cols + i, V::Load(from.data + r * from.stride + i));
  }
}

// scores[j][i] = λ^(i-j) q_i · k_j, zero above the diagonal; only squares of 16 that touch the lower triangle are
// computed. queries is [dim][64].
template <class V>
void ChunkScores(int64_t n, int64_t dim, const float* queries, const float* keys, const float* powers, float* scores) {
  const int64_t padded = (n + 15) / 16 * 16;
  for (int64_t j = 0; j < n; j += 16) {
    const int64_t count = n - j < 16 ? n - j : 16;
    Gemm<V>(count, padded - j, dim, {keys + j * dim, dim, 1}, queries + j, kChunkTokens, scores + j * kChunkTokens + j,
            kChunkTokens);
    for (int64_t row = j; row < j + count; ++row) {
      for (int64_t i = j; i < padded; i += V::kLanes) {
        float* at = scores + row * kChunkTokens + i;
        V::Store(at, V::Load(at) * V::Load(powers + kChunkTokens + i - row));
      }
    }
  }
}

template <class V>
void LightningChunk(const LightningTask& task, int64_t row, int64_t n, float* scratch) {
  const int64_t dim = task.dim;
  const float* powers = task.powers + kChunkTokens;
  float* queries = scratch;                      // [dim][64]
  float* keys = queries + kChunkTokens * dim;    // [64][dim]
  float* values = keys + kChunkTokens * dim;     // [64][cols]
  float* factors = values + kChunkTokens * dim;  // [dim]
  float* scores = factors + dim;                 // [64][64]
  float* out = task.out.data + row * task.out.stride + task.col;
  float* state = task.state + task.col;

  const float* q = task.q.data + row * task.q.stride;
  TransposeRows<V>([&](int64_t r) { return q + r * task.q.stride; }, n, (n + 15) / 16 * 16, dim, task.scale, queries,
                   kChunkTokens);
  CopyRows<V>({task.k.data + row * task.k.stride, task.k.stride}, n, dim, keys);
  CopyRows<V>({task.v.data + row * task.v.stride + task.col, task.v.stride}, n, task.cols, values);
  ChunkScores<V>(n, dim, queries, keys, task.powers, scores);

  Gemm<V>(n, task.cols, dim, {queries, 1, kChunkTokens}, state, dim, out, task.out.stride);
  for (int64_t i = 0; i < n; i += 16) {
    const int64_t count = n - i < 16 ? n - i : 16;
    Gemm<V, GemmStart::kScaledAdd>(count, task.cols, i + count, {scores + i, 1, kChunkTokens}, values, task.cols,
                                   out + i * task.out.stride, task.out.stride, powers + i + 1);
  }

  for (int64_t j = 0; j < n; ++j) {
    const auto power = V::Set(powers[n - 1 - j]);
    for (int64_t i = 0; i < dim; i += V::kLanes) V::Store(keys + j * dim + i, V::Load(keys + j * dim + i) * power);
  }
  for (int64_t i = 0; i < dim; i += V::kLanes) V::Store(factors + i, V::Set(powers[n]));
  Gemm<V, GemmStart::kScaledAdd>(dim, task.cols, n, {keys, 1, dim}, values, task.cols, state, dim, factors);
}

// Chunks end at multiples of 64 positions: spans that begin at such multiples cut a prompt without changing a bit.
template <class V>
void LightningChunks(const LightningTask& task, float* scratch) {
  for (int64_t row = 0, n; row < task.rows; row += n) {
    n = kChunkTokens - (task.position + row) % kChunkTokens;
    if (n > task.rows - row) n = task.rows - row;
    LightningChunk<V>(task, row, n, scratch);
  }
}

template <class V, int kVectors>
void StepColumns(const LightningTask& task, int64_t col) {
  const auto decay = V::Set(task.powers[kChunkTokens + 1]);
  typename V::Float v[kVectors], out[kVectors];
  for (int j = 0; j < kVectors; ++j) {
    v[j] = V::Load(task.v.data + col + j * V::kLanes);
    out[j] = V::Set(0);
  }
  for (int64_t i = 0; i < task.dim; ++i) {
    const auto k = V::Set(task.k.data[i]), q = V::Set(task.q.data[i] * task.scale);
    float* state = task.state + i * task.dim + col;
    for (int j = 0; j < kVectors; ++j) {
      const auto s = V::Fma(k, v[j], V::Load(state + j * V::kLanes) * decay);
      V::Store(state + j * V::kLanes, s);
      out[j] = V::Fma(q, s, out[j]);
    }
  }
  for (int j = 0; j < kVectors; ++j) V::Store(task.out.data + col + j * V::kLanes, out[j]);
}

// One token: S = λ S + k vᵀ, out = scale · q S.
template <class V>
void LightningStep(const LightningTask& task) {
  const int64_t end = task.col + task.cols;
  int64_t col = task.col;
  for (; col + 4 * V::kLanes <= end; col += 4 * V::kLanes) StepColumns<V, 4>(task, col);
  for (; col < end; col += V::kLanes) StepColumns<V, 1>(task, col);
}

}  // namespace salamander::kernels::body

#endif  // SALAMANDER_KERNELS_CPU_BODY_LIGHTNING_H_
