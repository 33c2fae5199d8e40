// An Ops that does what another does, up to a fault on purpose.
//
// SALAMANDER_TEST_FAULT=OP:N:KIND makes the N-th OP of the process (from 1, over all its Ops) fail. If
// SALAMANDER_TEST_FAULT_FROM is set, the N-th once a file of that name exists; if SALAMANDER_TEST_FAULT_IN, only in the
// program of that name. OP is a name of OpName, `logits` or `allocate`. KIND:
//   address  the op gets an address that no memory has: on a GPU a real fault, which shows some time later
//   lost     as if: the op does nothing, and from then on nothing of any Ops works, as on a lost device
//   memory   of `allocate`: RESOURCE_EXHAUSTED, this once
#ifndef SALAMANDER_TESTS_TESTING_FAULTY_DEVICE_FAULTY_OPS_H_
#define SALAMANDER_TESTS_TESTING_FAULTY_DEVICE_FAULTY_OPS_H_

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "kernels/op_kind.h"
#include "kernels/ops.h"

namespace salamander::testing {

enum class FaultKind { kNone, kAddress, kLost, kMemory };

// INVALID_ARGUMENT if SALAMANDER_TEST_FAULT is not as above. A device's memory is never the host's, as far as its user
// knows.
absl::StatusOr<std::unique_ptr<kernels::Ops>> MakeFaulty(std::unique_ptr<kernels::Ops> real);

class FaultyOps final : public kernels::Ops {
 public:
  explicit FaultyOps(std::unique_ptr<kernels::Ops> real) : real_(std::move(real)) {}

  std::string name() const override { return "faulty " + real_->name(); }
  kernels::DType activation_type() const override { return real_->activation_type(); }

  absl::StatusOr<void*> Allocate(int64_t bytes) override;
  void Free(void* memory) override { real_->Free(memory); }
  absl::Status CopyToDevice(void* to, const void* from_host, int64_t bytes) override;
  absl::Status CopyToHost(void* to_host, const void* from, int64_t bytes) override;
  absl::Status Zero(void* memory, int64_t bytes) override;
  absl::Status Synchronize() override;
  int64_t own_bytes() const override { return real_->own_bytes(); }
  absl::StatusOr<int64_t> MemoryBytes() override { return real_->MemoryBytes(); }
  bool host_memory() const override { return false; }
  absl::StatusOr<void*> AllocateHost(int64_t bytes) override { return real_->AllocateHost(bytes); }
  void FreeHost(void* memory) override { real_->FreeHost(memory); }
  std::shared_ptr<kernels::Event> Record() override;
  absl::StatusOr<std::unique_ptr<kernels::Copier>> NewCopier() override;

  bool records_repeats() const override { return real_->records_repeats(); }
  absl::Status BeginRepeat(const kernels::RepeatKey& key) override { return real_->BeginRepeat(key); }
  absl::Status EndRepeat() override { return real_->EndRepeat(); }

  absl::StatusOr<std::unique_ptr<kernels::Weight>> PrepareWeight(absl::Span<const kernels::WeightPart> parts) override {
    return real_->PrepareWeight(parts);
  }
  absl::Status MatMul(const kernels::Matrix& x, const kernels::Weight& weight, const float* bias,
                      const kernels::Matrix& y) override;
  absl::Status MatMulLogits(const kernels::Matrix& x, const kernels::Weight& weight, float* logits,
                            int64_t logits_stride) override;
  absl::Status Embed(absl::Span<const int32_t> tokens, const kernels::Weight& table, float scale,
                     const kernels::Matrix& hidden) override;
  absl::Status AddRmsNorm(const kernels::Matrix& hidden, const kernels::Matrix& delta, float delta_scale,
                          const float* norm, float eps, float x_scale, const kernels::Matrix& x) override;
  absl::Status HeadNormRope(const kernels::Matrix& x, int64_t head_dim, const float* norm, float eps, float theta,
                            absl::Span<const int64_t> positions) override;
  absl::Status SiluMul(const kernels::Matrix& gate_up, const kernels::Matrix& out) override;
  absl::Status NormGate(const kernels::Matrix& x, const float* norm, float eps, const kernels::Matrix& gate) override;
  absl::Status Lightning(const kernels::LightningShape& shape, const kernels::Matrix& q, const kernels::Matrix& k,
                         const kernels::Matrix& v, absl::Span<const kernels::LightningRows> sequences,
                         const kernels::Matrix& out) override;
  absl::Status AppendKv(const kernels::SparseShape& shape, const kernels::Matrix& k, const kernels::Matrix& v,
                        absl::Span<const kernels::SparseRows> sequences) override;
  absl::Status PoolTiers(const kernels::SparseShape& shape, absl::Span<const kernels::SparseRows> sequences) override;
  absl::Status SelectBlocks(const kernels::SparseShape& shape, const kernels::Matrix& q,
                            absl::Span<const kernels::SparseRows> sequences, int32_t* blocks) override;
  absl::Status AttendBlocks(const kernels::SparseShape& shape, const kernels::Matrix& q,
                            absl::Span<const kernels::SparseRows> sequences, const int32_t* blocks,
                            const kernels::Matrix& out) override;
  absl::Status AttendDense(const kernels::SparseShape& shape, const kernels::Matrix& q,
                           absl::Span<const kernels::SparseRows> sequences, const kernels::Matrix& out) override;
  absl::Status Sample(const kernels::Matrix& logits, absl::Span<const kernels::SampleRow> rows,
                      absl::Span<const kernels::LogitEdit> edits, kernels::SampledToken* tokens,
                      kernels::TokenLogprob* top, int64_t top_stride) override;

  std::vector<std::pair<std::string, double>> OpSeconds() const override { return real_->OpSeconds(); }
  void SetTiming(bool on) override { real_->SetTiming(on); }

 private:
  std::unique_ptr<kernels::Ops> real_;
};

}  // namespace salamander::testing

#endif  // SALAMANDER_TESTS_TESTING_FAULTY_DEVICE_FAULTY_OPS_H_
