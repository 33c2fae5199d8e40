// Turns rows into columns, so that rows become the lanes of a matrix product.
#ifndef SALAMANDER_KERNELS_CPU_BODY_TRANSPOSE_H_
#define SALAMANDER_KERNELS_CPU_BODY_TRANSPOSE_H_

#include <cstdint>

namespace salamander::kernels::body {

// Transposes kLanes vectors in place: log2(kLanes) rounds, each of which interleaves vector i with vector
// i + kLanes / 2.
template <class V>
inline void TransposeSquare(typename V::Float* x) {
  constexpr int kHalf = V::kLanes / 2;
#pragma GCC unroll 4
  for (int round = 1; round < V::kLanes; round *= 2) {
    typename V::Float y[V::kLanes];
#pragma GCC unroll 8
    for (int i = 0; i < kHalf; ++i) {
      y[2 * i] = V::ZipLow(x[i], x[i + kHalf]);
      y[2 * i + 1] = V::ZipHigh(x[i], x[i + kHalf]);
    }
#pragma GCC unroll 16
    for (int i = 0; i < V::kLanes; ++i) x[i] = y[i];
  }
}

// out[i·out_row + r] = rows(r)[i] · scale for r < count and i < dim; zero for r from count up to `padded`, a multiple
// of V::kLanes like dim. `rows` maps an index to a pointer.
template <class V, class Row>
void TransposeRows(Row rows, int64_t count, int64_t padded, int64_t dim, float scale, float* out, int64_t out_row) {
  const auto factor = V::Set(scale);
  for (int64_t r = 0; r < padded; r += V::kLanes) {
    for (int64_t i = 0; i < dim; i += V::kLanes) {
      typename V::Float x[V::kLanes];
#pragma GCC unroll 16
      for (int l = 0; l < V::kLanes; ++l) x[l] = r + l < count ? V::Load(rows(r + l) + i) * factor : V::Set(0);
      TransposeSquare<V>(x);
#pragma GCC unroll 16
      for (int l = 0; l < V::kLanes; ++l) V::Store(out + (i + l) * out_row + r, x[l]);
    }
  }
}

}  // namespace salamander::kernels::body

#endif  // SALAMANDER_KERNELS_CPU_BODY_TRANSPOSE_H_
