// Weights of the CUDA backend, and their products by cuBLASLt.
#ifndef SALAMANDER_KERNELS_CUDA_LT_MATMUL_H_
#define SALAMANDER_KERNELS_CUDA_LT_MATMUL_H_

#include <cublasLt.h>
#include <cuda_bf16.h>

#include <compare>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/ops.h"

namespace salamander::kernels::cuda {

// BF16 [out, in], row-major.
class CudaWeight : public Weight {
 public:
  CudaWeight(__nv_bfloat16* data, int64_t in, int64_t out, std::function<void(void*)> free)
      : data_(data), in_(in), out_(out), free_(std::move(free)) {}
  ~CudaWeight() override { free_(data_); }
  CudaWeight(const CudaWeight&) = delete;

  int64_t in_features() const override { return in_; }
  int64_t out_features() const override { return out_; }
  int64_t bytes() const override { return in_ * out_ * static_cast<int64_t>(sizeof(__nv_bfloat16)); }
  __nv_bfloat16* data() const { return data_; }

 private:
  __nv_bfloat16* data_;
  int64_t in_, out_;
  std::function<void(void*)> free_;
};

// Engine thread only.
class LtMatMul {
 public:
  static constexpr int64_t kWorkspaceBytes = int64_t{32} << 20;

  static absl::StatusOr<std::unique_ptr<LtMatMul>> Create();
  ~LtMatMul();
  LtMatMul(const LtMatMul&) = delete;

  // y [rows, out] = x [rows, in] · weightᵀ, y of type `type`. `workspace` are kWorkspaceBytes.
  absl::Status Multiply(const Matrix& x, const CudaWeight& weight, DType type, void* y, int64_t y_stride,
                        void* workspace, cudaStream_t stream);

 private:
  // Everything that cuBLASLt's choice depends on.
  struct Shape {
    int64_t rows = 0, in = 0, out = 0, x_stride = 0, y_stride = 0;
    uint32_t x_alignment = 0, y_alignment = 0;
    DType type = DType::kBFloat16;
    auto operator<=>(const Shape&) const = default;
  };
  struct Plan {
    ~Plan();
    cublasLtMatmulDesc_t product = nullptr;
    cublasLtMatrixLayout_t weight = nullptr, x = nullptr, y = nullptr;
    cublasLtMatmulAlgo_t algorithm;
  };
  // Spans end anywhere, so shapes are many: forgotten all at once when there are this many.
  static constexpr size_t kMaxPlans = 4096;

  LtMatMul() = default;
  absl::StatusOr<const Plan*> PlanFor(const Shape& shape);

  cublasLtHandle_t handle_ = nullptr;
  std::map<Shape, std::unique_ptr<Plan>> plans_;
};

}  // namespace salamander::kernels::cuda

#endif  // SALAMANDER_KERNELS_CUDA_LT_MATMUL_H_
