#include "kernels/cpu/task_views.h"

#include "absl/strings/str_format.h"

namespace salamander::kernels {
namespace {

absl::Status CheckHeads(const char* what, int64_t heads, int64_t kv_heads, int64_t dim) {
  if (dim <= 0 || dim % kDimMultiple != 0) {
    return absl::InvalidArgumentError(
        absl::StrFormat("%s head_dim must be a multiple of %d on the CPU, got %d", what, kDimMultiple, dim));
  }
  if (kv_heads <= 0 || heads % kv_heads != 0 || heads / kv_heads > kMaxGroup) {
    return absl::InvalidArgumentError(
        absl::StrFormat("%s heads must be a multiple of kv_heads, at most %d times as many on the CPU, got %d and %d",
                        what, kMaxGroup, heads, kv_heads));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckSparseShape(const SparseShape& shape) {
  return CheckHeads("sparse", shape.heads, shape.kv.kv_heads, shape.kv.head_dim);
}

absl::Status CheckLightningShape(const LightningShape& shape) {
  return CheckHeads("lightning", shape.heads, shape.kv_heads, shape.head_dim);
}

}  // namespace salamander::kernels
