#include "kernels/cuda/lt_matmul.h"

#include <type_traits>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"

namespace salamander::kernels::cuda {
namespace {

// More says nothing new to cuBLASLt.
constexpr uintptr_t kBestAlignment = 256;

uint32_t AlignmentOf(const void* data) {
  const auto address = reinterpret_cast<uintptr_t>(data) | kBestAlignment;
  return static_cast<uint32_t>(address & -address);
}

absl::Status LtStatus(cublasStatus_t status, absl::string_view what) {
  if (status == CUBLAS_STATUS_SUCCESS) return absl::OkStatus();
  return absl::InternalError(absl::StrCat("cuda: cublasLt: ", what, ": ", cublasLtGetStatusString(status)));
}

struct DestroyPreference {
  void operator()(cublasLtMatmulPreference_t preference) const { cublasLtMatmulPreferenceDestroy(preference); }
};

template <typename T>
cublasStatus_t Set(cublasLtMatmulPreference_t preference, cublasLtMatmulPreferenceAttributes_t attribute, T value) {
  return cublasLtMatmulPreferenceSetAttribute(preference, attribute, &value, sizeof(value));
}

}  // namespace

absl::StatusOr<std::unique_ptr<LtMatMul>> LtMatMul::Create() {
  std::unique_ptr<LtMatMul> matmul(new LtMatMul());
  RETURN_IF_ERROR(LtStatus(cublasLtCreate(&matmul->handle_), "create"));
  return matmul;
}

LtMatMul::~LtMatMul() {
  plans_.clear();
  if (handle_ != nullptr) cublasLtDestroy(handle_);
}

LtMatMul::Plan::~Plan() {
  if (product != nullptr) cublasLtMatmulDescDestroy(product);
  for (cublasLtMatrixLayout_t layout : {weight, x, y}) {
    if (layout != nullptr) cublasLtMatrixLayoutDestroy(layout);
  }
}

// cuBLAS counts by columns: to it the weight is [in, out], to be transposed, x is [in, rows] and y is [out, rows].
absl::StatusOr<const LtMatMul::Plan*> LtMatMul::PlanFor(const Shape& shape) {
  if (const auto found = plans_.find(shape); found != plans_.end()) return found->second.get();
  if (plans_.size() == kMaxPlans) plans_.clear();
  auto plan = std::make_unique<Plan>();
  const cublasOperation_t transposed = CUBLAS_OP_T;
  const cudaDataType y_type = shape.type == DType::kFloat32 ? CUDA_R_32F : CUDA_R_16BF;
  RETURN_IF_ERROR(LtStatus(cublasLtMatmulDescCreate(&plan->product, CUBLAS_COMPUTE_32F, CUDA_R_32F), "product"));
  RETURN_IF_ERROR(LtStatus(
      cublasLtMatmulDescSetAttribute(plan->product, CUBLASLT_MATMUL_DESC_TRANSA, &transposed, sizeof(transposed)),
      "product"));
  RETURN_IF_ERROR(LtStatus(cublasLtMatrixLayoutCreate(&plan->weight, CUDA_R_16BF, shape.in, shape.out, shape.in),
                           "layout of a weight"));
  RETURN_IF_ERROR(
      LtStatus(cublasLtMatrixLayoutCreate(&plan->x, CUDA_R_16BF, shape.in, shape.rows, shape.x_stride), "layout of x"));
  RETURN_IF_ERROR(
      LtStatus(cublasLtMatrixLayoutCreate(&plan->y, y_type, shape.out, shape.rows, shape.y_stride), "layout of y"));

  cublasLtMatmulPreference_t created = nullptr;
  RETURN_IF_ERROR(LtStatus(cublasLtMatmulPreferenceCreate(&created), "preference"));
  const std::unique_ptr<std::remove_pointer_t<cublasLtMatmulPreference_t>, DestroyPreference> preference(created);
  for (const cublasStatus_t set :
       {Set<uint64_t>(created, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, kWorkspaceBytes),
        Set<uint32_t>(created, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, kBestAlignment),
        Set<uint32_t>(created, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, shape.x_alignment),
        Set<uint32_t>(created, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, shape.y_alignment),
        Set<uint32_t>(created, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, shape.y_alignment)}) {
    RETURN_IF_ERROR(LtStatus(set, "preference"));
  }
  cublasLtMatmulHeuristicResult_t result;
  int count = 0;
  RETURN_IF_ERROR(LtStatus(cublasLtMatmulAlgoGetHeuristic(handle_, plan->product, plan->weight, plan->x, plan->y,
                                                          plan->y, created, 1, &result, &count),
                           "choice of an algorithm"));
  if (count == 0) return absl::InternalError("cuda: cublasLt has no algorithm");
  plan->algorithm = result.algo;
  return plans_.emplace(shape, std::move(plan)).first->second.get();
}

absl::Status LtMatMul::Multiply(const Matrix& x, const CudaWeight& weight, DType type, void* y, int64_t y_stride,
                                void* workspace, cudaStream_t stream) {
  const Shape shape = {.rows = x.rows,
                       .in = weight.in_features(),
                       .out = weight.out_features(),
                       .x_stride = x.stride,
                       .y_stride = y_stride,
                       .x_alignment = AlignmentOf(x.data),
                       .y_alignment = AlignmentOf(y),
                       .type = type};
  const absl::Status status = [&]() -> absl::Status {
    ASSIGN_OR_RETURN(const Plan* plan, PlanFor(shape));
    const float one = 1, zero = 0;
    return LtStatus(cublasLtMatmul(handle_, plan->product, &one, weight.data(), plan->weight, x.data, plan->x, &zero, y,
                                   plan->y, y, plan->y, &plan->algorithm, workspace, kWorkspaceBytes, stream),
                    "launch");
  }();
  if (status.ok()) return status;
  return Annotate(status, absl::StrCat("product of ", shape.rows, " x ", shape.in, " x ", shape.out));
}

}  // namespace salamander::kernels::cuda
