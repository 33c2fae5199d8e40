// Weights and matrix products.
#include <cstring>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "kernels/cuda/cuda_ops.h"

namespace salamander::kernels::cuda {

absl::StatusOr<std::unique_ptr<Weight>> CudaOps::PrepareWeight(absl::Span<const WeightPart> parts) {
  RETURN_IF_ERROR(Enter());
  int64_t in = 0, out = 0;
  for (const WeightPart& part : parts) {
    in = part.cols;
    out += part.rows;
  }
  ASSIGN_OR_RETURN(void* const memory, memory_->Allocate(in * out * static_cast<int64_t>(sizeof(bf16))));
  auto weight = std::make_unique<CudaWeight>(static_cast<bf16*>(memory), in, out, [this](void* freed) { Free(freed); });
  bf16* to = weight->data();
  for (const WeightPart& part : parts) {
    RETURN_IF_ERROR(FillWeight(part, to));
    to += part.rows * part.cols;
  }
  // Other Ops of the device may use it from now on.
  RETURN_IF_ERROR(faults_->Check(cudaStreamSynchronize(stream_), "prepare a weight"));
  return weight;
}

absl::Status CudaOps::FillWeight(const WeightPart& part, bf16* to) {
  if (part.data == nullptr) {
    return faults_->Check(cuda::FillRandom(to, part.rows, part.cols, part.seed, stream_), "random weight");
  }
  const int64_t bytes = part.rows * part.cols * static_cast<int64_t>(sizeof(bf16));
  if (part.type == DType::kBFloat16) return staged_->ToDevice(to, part.data, bytes);
  return staged_->ToDevice(to, bytes, [&part](void* piece, int64_t begin, int64_t count) {
    // Checkpoints may hold weights at odd addresses.
    const auto* from = static_cast<const std::byte*>(part.data) + begin / sizeof(bf16) * sizeof(float);
    auto* values = static_cast<bf16*>(piece);
    for (size_t i = 0; i < count / sizeof(bf16); ++i) {
      float value;
      std::memcpy(&value, from + i * sizeof(float), sizeof(value));
      values[i] = __float2bfloat16(value);
    }
  });
}

absl::Status CudaOps::MatMul(const Matrix& x, const Weight& weight, const float* bias, const Matrix& y) {
  return Multiply(x, weight, bias, DType::kBFloat16, y.data, y.stride);
}

absl::Status CudaOps::MatMulLogits(const Matrix& x, const Weight& weight, float* logits, int64_t logits_stride) {
  return Multiply(x, weight, nullptr, DType::kFloat32, logits, logits_stride);
}

// A bias is added apart: cuBLASLt's epilogue would want it in BF16, and no released model has one.
absl::Status CudaOps::Multiply(const Matrix& x, const Weight& weight, const float* bias, DType type, void* y,
                               int64_t y_stride) {
  if (x.rows == 0) return absl::OkStatus();
  const auto& prepared = static_cast<const CudaWeight&>(weight);
  const int64_t in = weight.in_features(), out = weight.out_features();
  // Gemv reads pieces of 16 bytes.
  const bool few_rows = x.rows <= kGemvRows && in % (16 / static_cast<int64_t>(sizeof(bf16))) == 0;
  const OpSignature op(OpKind::kMatMul, x, prepared.data(), out, bias, type, y, y_stride);
  return Run(op, {}, [&](const void*) -> absl::Status {
    const char* name = OpName(OpKind::kMatMul);
    if (few_rows) {
      GemvParams params = {.x = {static_cast<const bf16*>(x.data), x.stride},
                           .weight = prepared.data(),
                           .rows = x.rows,
                           .in = in,
                           .out = out};
      if (type == DType::kFloat32) {
        params.logits = static_cast<float*>(y);
        params.logits_stride = y_stride;
      } else {
        params.y = {static_cast<bf16*>(y), y_stride};
      }
      RETURN_IF_ERROR(faults_->Check(cuda::Gemv(params, stream_), name));
    } else {
      RETURN_IF_ERROR(matmul_->Multiply(x, prepared, type, y, y_stride, workspace_, stream_));
    }
    if (bias == nullptr) return absl::OkStatus();
    return faults_->Check(cuda::AddBias({static_cast<bf16*>(y), y_stride}, bias, x.rows, out, stream_), name);
  });
}

}  // namespace salamander::kernels::cuda
