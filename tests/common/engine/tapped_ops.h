// Another Ops with a tap behind SelectBlocks: the one place where a forward pass decides instead of computing, so that
// a test can see what was decided, or decide otherwise.
#ifndef SALAMANDER_TESTS_COMMON_ENGINE_TAPPED_OPS_H_
#define SALAMANDER_TESTS_COMMON_ENGINE_TAPPED_OPS_H_

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "common/base/status_macros.h"
#include "kernels/ops.h"

namespace salamander::engine {

class TappedOps : public kernels::Ops {
 public:
  using Matrix = kernels::Matrix;
  using Weight = kernels::Weight;
  using SparseList = absl::Span<const kernels::SparseRows>;
  // Called after every SelectBlocks, with its arguments. May change `blocks`, which are the device's.
  using Tap = std::function<absl::Status(const kernels::SparseShape& shape, const Matrix& q, SparseList sequences,
                                         int32_t* blocks)>;

  explicit TappedOps(std::unique_ptr<kernels::Ops> inner) : inner_(std::move(inner)) {}
  // Null: none. A tap must not be there while repeats are recorded.
  void SetTap(Tap tap) { tap_ = std::move(tap); }

  std::string name() const override { return inner_->name(); }
  kernels::DType activation_type() const override { return inner_->activation_type(); }
  absl::StatusOr<void*> Allocate(int64_t bytes) override { return inner_->Allocate(bytes); }
  void Free(void* memory) override { inner_->Free(memory); }
  absl::Status CopyToDevice(void* to, const void* from_host, int64_t bytes) override {
    return inner_->CopyToDevice(to, from_host, bytes);
  }
  absl::Status CopyToHost(void* to_host, const void* from, int64_t bytes) override {
    return inner_->CopyToHost(to_host, from, bytes);
  }
  absl::Status Zero(void* memory, int64_t bytes) override { return inner_->Zero(memory, bytes); }
  absl::Status Synchronize() override { return inner_->Synchronize(); }
  int64_t own_bytes() const override { return inner_->own_bytes(); }
  absl::StatusOr<int64_t> MemoryBytes() override { return inner_->MemoryBytes(); }
  bool host_memory() const override { return inner_->host_memory(); }
  absl::StatusOr<void*> AllocateHost(int64_t bytes) override { return inner_->AllocateHost(bytes); }
  void FreeHost(void* memory) override { inner_->FreeHost(memory); }
  std::shared_ptr<kernels::Event> Record() override { return inner_->Record(); }
  absl::StatusOr<std::unique_ptr<kernels::Copier>> NewCopier() override { return inner_->NewCopier(); }
  bool records_repeats() const override { return inner_->records_repeats(); }
  absl::Status BeginRepeat(const kernels::RepeatKey& key) override { return inner_->BeginRepeat(key); }
  absl::Status EndRepeat() override { return inner_->EndRepeat(); }

  absl::StatusOr<std::unique_ptr<Weight>> PrepareWeight(absl::Span<const kernels::WeightPart> parts) override {
    return inner_->PrepareWeight(parts);
  }
  absl::Status MatMul(const Matrix& x, const Weight& weight, const float* bias, const Matrix& y) override {
    return inner_->MatMul(x, weight, bias, y);
  }
  absl::Status MatMulLogits(const Matrix& x, const Weight& weight, float* logits, int64_t logits_stride) override {
    return inner_->MatMulLogits(x, weight, logits, logits_stride);
  }
  absl::Status Embed(absl::Span<const int32_t> tokens, const Weight& table, float scale,
                     const Matrix& hidden) override {
    return inner_->Embed(tokens, table, scale, hidden);
  }
  absl::Status AddRmsNorm(const Matrix& hidden, const Matrix& delta, float delta_scale, const float* norm, float eps,
                          float x_scale, const Matrix& x) override {
    return inner_->AddRmsNorm(hidden, delta, delta_scale, norm, eps, x_scale, x);
  }
  absl::Status HeadNormRope(const Matrix& x, int64_t head_dim, const float* norm, float eps, float theta,
                            absl::Span<const int64_t> positions) override {
    return inner_->HeadNormRope(x, head_dim, norm, eps, theta, positions);
  }
  absl::Status SiluMul(const Matrix& gate_up, const Matrix& out) override { return inner_->SiluMul(gate_up, out); }
  absl::Status NormGate(const Matrix& x, const float* norm, float eps, const Matrix& gate) override {
    return inner_->NormGate(x, norm, eps, gate);
  }
  absl::Status Lightning(const kernels::LightningShape& shape, const Matrix& q, const Matrix& k, const Matrix& v,
                         absl::Span<const kernels::LightningRows> sequences, const Matrix& out) override {
    return inner_->Lightning(shape, q, k, v, sequences, out);
  }
  absl::Status AppendKv(const kernels::SparseShape& shape, const Matrix& k, const Matrix& v,
                        SparseList sequences) override {
    return inner_->AppendKv(shape, k, v, sequences);
  }
  absl::Status PoolTiers(const kernels::SparseShape& shape, SparseList sequences) override {
    return inner_->PoolTiers(shape, sequences);
  }
  absl::Status SelectBlocks(const kernels::SparseShape& shape, const Matrix& q, SparseList sequences,
                            int32_t* blocks) override {
    RETURN_IF_ERROR(inner_->SelectBlocks(shape, q, sequences, blocks));
    return tap_ ? tap_(shape, q, sequences, blocks) : absl::OkStatus();
  }
  absl::Status AttendBlocks(const kernels::SparseShape& shape, const Matrix& q, SparseList sequences,
                            const int32_t* blocks, const Matrix& out) override {
    return inner_->AttendBlocks(shape, q, sequences, blocks, out);
  }
  absl::Status AttendDense(const kernels::SparseShape& shape, const Matrix& q, SparseList sequences,
                           const Matrix& out) override {
    return inner_->AttendDense(shape, q, sequences, out);
  }
  absl::Status Sample(const Matrix& logits, absl::Span<const kernels::SampleRow> rows,
                      absl::Span<const kernels::LogitEdit> edits, kernels::SampledToken* tokens,
                      kernels::TokenLogprob* top, int64_t top_stride) override {
    return inner_->Sample(logits, rows, edits, tokens, top, top_stride);
  }
  std::vector<std::pair<std::string, double>> OpSeconds() const override { return inner_->OpSeconds(); }
  void SetTiming(bool on) override { inner_->SetTiming(on); }

 private:
  std::unique_ptr<kernels::Ops> inner_;
  Tap tap_;
};

}  // namespace salamander::engine

#endif  // SALAMANDER_TESTS_COMMON_ENGINE_TAPPED_OPS_H_
