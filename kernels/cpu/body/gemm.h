// The product all of our kernels are built from: C [m, n] = A [m, k] · B [k, n] for small tiles that lie in the first
// and second cache. A is read one number at a time, at any strides (so it may lie transposed); B and C row by row in
// vectors. Each number of C is one chain of fused multiply-adds over k in ascending order: what it gets does not depend
// on its place in the tile, nor on m and n. That is why results do not depend on how rows are cut into calls.
#ifndef SALAMANDER_KERNELS_CPU_BODY_GEMM_H_
#define SALAMANDER_KERNELS_CPU_BODY_GEMM_H_

#include <cstdint>

namespace salamander::kernels::body {

// Element (i, l) is at data[i·row + l·step].
struct GemmA {
  const float* data;
  int64_t row;
  int64_t step;
};

// What the sums start from: nothing, C, or C with row i scaled by row_scale[i].
enum class GemmStart { kZero, kAdd, kScaledAdd };

template <class V, GemmStart kStart, int kRows, int kVectors>
inline __attribute__((always_inline)) void GemmBlock(int64_t k, GemmA a, const float* b, int64_t b_row, float* c,
                                                     int64_t c_row, const float* row_scale) {
  typename V::Float sum[kRows][kVectors];
#pragma GCC unroll 16
  for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 8
    for (int j = 0; j < kVectors; ++j) {
      if constexpr (kStart == GemmStart::kZero) {
        sum[i][j] = V::Set(0);
      } else if constexpr (kStart == GemmStart::kAdd) {
        sum[i][j] = V::Load(c + i * c_row + j * V::kLanes);
      } else {
        sum[i][j] = V::Load(c + i * c_row + j * V::kLanes) * V::Set(row_scale[i]);
      }
    }
  }
  for (int64_t l = 0; l < k; ++l) {
    typename V::Float row[kVectors];
#pragma GCC unroll 8
    for (int j = 0; j < kVectors; ++j) row[j] = V::Load(b + l * b_row + j * V::kLanes);
#pragma GCC unroll 16
    for (int i = 0; i < kRows; ++i) {
      const auto x = V::Set(a.data[i * a.row + l * a.step]);
#pragma GCC unroll 8
      for (int j = 0; j < kVectors; ++j) sum[i][j] = V::Fma(x, row[j], sum[i][j]);
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 8
    for (int j = 0; j < kVectors; ++j) V::Store(c + i * c_row + j * V::kLanes, sum[i][j]);
  }
}

// All rows of a column strip of kVectors vectors, kRows at a time, then fewer.
template <class V, GemmStart kStart, int kRows, int kVectors>
void GemmStrip(int64_t m, int64_t k, GemmA a, const float* b, int64_t b_row, float* c, int64_t c_row,
               const float* row_scale) {
  int64_t i = 0;
  for (; i + kRows <= m; i += kRows) {
    GemmBlock<V, kStart, kRows, kVectors>(k, {a.data + i * a.row, a.row, a.step}, b, b_row, c + i * c_row, c_row,
                                          row_scale + (kStart == GemmStart::kScaledAdd ? i : 0));
  }
  if constexpr (kRows > 1) {
    if (i < m) {
      GemmStrip<V, kStart, kRows / 2, kVectors>(m - i, k, {a.data + i * a.row, a.row, a.step}, b, b_row, c + i * c_row,
                                                c_row, row_scale + (kStart == GemmStart::kScaledAdd ? i : 0));
    }
  }
}

// n is a multiple of V::kLanes. Blocks hold 12 to 16 vectors of sums (8 to 12 with 16 registers): enough to cover the
// latency of two multiply-adds a cycle, and few enough to stay in registers. One or two rows take wider blocks.
template <class V, GemmStart kStart = GemmStart::kZero>
void Gemm(int64_t m, int64_t n, int64_t k, GemmA a, const float* b, int64_t b_row, float* c, int64_t c_row,
          const float* row_scale = nullptr) {
  const auto strip = [&]<int kRows, int kVectors>(int64_t j) {
    GemmStrip<V, kStart, kRows, kVectors>(m, k, a, b + j, b_row, c + j, c_row, row_scale);
    return j + kVectors * V::kLanes;
  };
  int64_t j = 0;
  if constexpr (V::kLanes >= 16) {  // 32 registers
    while (j + 4 * V::kLanes <= n) j = strip.template operator()<4, 4>(j);
    if (j + 3 * V::kLanes <= n) j = strip.template operator()<4, 3>(j);
    if (j + 2 * V::kLanes <= n) j = strip.template operator()<8, 2>(j);
    if (j < n) strip.template operator()<16, 1>(j);
  } else {
    while (m == 1 && j + 8 * V::kLanes <= n) j = strip.template operator()<1, 8>(j);
    while (m <= 3 && j + 4 * V::kLanes <= n) j = strip.template operator()<2, 4>(j);
    while (j + 2 * V::kLanes <= n) j = strip.template operator()<4, 2>(j);
    if (j < n) strip.template operator()<8, 1>(j);
  }
}

}  // namespace salamander::kernels::body

#endif  // SALAMANDER_KERNELS_CPU_BODY_GEMM_H_
