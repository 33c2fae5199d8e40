// From the arguments of an operation to what kernel tasks hold.
#ifndef SALAMANDER_KERNELS_CPU_TASK_VIEWS_H_
#define SALAMANDER_KERNELS_CPU_TASK_VIEWS_H_

#include "absl/status/status.h"
#include "kernels/cpu/kernel_table.h"
#include "kernels/ops.h"

namespace salamander::kernels {

// The head's columns of a matrix, from `row` on.
inline Rows HeadRows(const Matrix& m, int64_t row, int64_t head, int64_t dim) {
  return {static_cast<float*>(m.data) + row * m.stride + head * dim, m.stride};
}

inline HeadPages PagesOf(const KvLayout& kv, std::byte* const* pages, int64_t head) {
  return {pages, kv.head_dim, kv.keys(0, head), kv.values(0, head), kv.block_bytes(), kv.k1(head, 0), kv.k2(head, 0)};
}

// What these kernels cannot do is refused: head_dim must be a multiple of 16, a group at most 64 query heads.
absl::Status CheckSparseShape(const SparseShape& shape);
absl::Status CheckLightningShape(const LightningShape& shape);

}  // namespace salamander::kernels

#endif  // SALAMANDER_KERNELS_CPU_TASK_VIEWS_H_
