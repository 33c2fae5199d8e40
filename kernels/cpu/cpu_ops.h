// The CPU backend: cuts each operation into tasks for a few threads and runs the kernels of one instruction set.
// Results are the same, bit for bit, for any number of threads.
#ifndef SALAMANDER_KERNELS_CPU_CPU_OPS_H_
#define SALAMANDER_KERNELS_CPU_CPU_OPS_H_

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "kernels/cpu/fork_join.h"
#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/matmul.h"
#include "kernels/cpu/op_clock.h"
#include "kernels/cpu/rope_table.h"
#include "kernels/cpu/scratch.h"
#include "kernels/ops.h"

namespace salamander::kernels {

class CpuOps : public Ops {
 public:
  CpuOps(int threads, CpuIsa isa);

  std::string name() const override;
  DType activation_type() const override { return DType::kFloat32; }

  absl::StatusOr<void*> Allocate(int64_t bytes) override;
  void Free(void* memory) override;
  absl::Status CopyToDevice(void* to, const void* from_host, int64_t bytes) override;
  absl::Status CopyToHost(void* to_host, const void* from, int64_t bytes) override;
  absl::Status Zero(void* memory, int64_t bytes) override;
  absl::Status Synchronize() override { return absl::OkStatus(); }
  absl::StatusOr<int64_t> MemoryBytes() override;
  bool host_memory() const override { return true; }
  absl::StatusOr<void*> AllocateHost(int64_t bytes) override { return Allocate(bytes); }
  void FreeHost(void* memory) override { Free(memory); }
  std::shared_ptr<Event> Record() override;
  absl::StatusOr<std::unique_ptr<Copier>> NewCopier() override;

  absl::StatusOr<std::unique_ptr<Weight>> PrepareWeight(absl::Span<const WeightPart> parts) override;
  absl::Status MatMul(const Matrix& x, const Weight& weight, const float* bias, const Matrix& y) override;
  absl::Status MatMulLogits(const Matrix& x, const Weight& weight, float* logits, int64_t logits_stride) override;

  absl::Status Embed(absl::Span<const int32_t> tokens, const Weight& table, float scale, const Matrix& hidden) override;
  absl::Status AddRmsNorm(const Matrix& hidden, const Matrix& delta, float delta_scale, const float* norm, float eps,
                          float x_scale, const Matrix& x) override;
  absl::Status HeadNormRope(const Matrix& x, int64_t head_dim, const float* norm, float eps, float theta,
                            absl::Span<const int64_t> positions) override;
  absl::Status SiluMul(const Matrix& gate_up, const Matrix& out) override;
  absl::Status NormGate(const Matrix& x, const float* norm, float eps, const Matrix& gate) override;

  absl::Status Lightning(const LightningShape& shape, const Matrix& q, const Matrix& k, const Matrix& v,
                         absl::Span<const LightningRows> sequences, const Matrix& out) override;

  absl::Status AppendKv(const SparseShape& shape, const Matrix& k, const Matrix& v,
                        absl::Span<const SparseRows> sequences) override;
  absl::Status PoolTiers(const SparseShape& shape, absl::Span<const SparseRows> sequences) override;
  absl::Status SelectBlocks(const SparseShape& shape, const Matrix& q, absl::Span<const SparseRows> sequences,
                            int32_t* blocks) override;
  absl::Status AttendBlocks(const SparseShape& shape, const Matrix& q, absl::Span<const SparseRows> sequences,
                            const int32_t* blocks, const Matrix& out) override;
  absl::Status AttendDense(const SparseShape& shape, const Matrix& q, absl::Span<const SparseRows> sequences,
                           const Matrix& out) override;

  absl::Status Sample(const Matrix& logits, absl::Span<const SampleRow> rows, absl::Span<const LogitEdit> edits,
                      SampledToken* tokens, TokenLogprob* top, int64_t top_stride) override;

  std::vector<std::pair<std::string, double>> OpSeconds() const override { return clock_.Seconds(); }

 private:
  // Runs f(begin, end) over pieces of [0, rows), enough to keep every thread busy.
  void ForRows(int64_t rows, absl::FunctionRef<void(int64_t begin, int64_t end)> f);
  absl::Status Attend(const SparseShape& shape, const Matrix& q, absl::Span<const SparseRows> sequences,
                      const int32_t* blocks, const Matrix& out);
  void PoolTiersOf(const SparseShape& shape, std::byte* const* pages, int64_t from, int64_t to);
  RopeTable& RopeTableFor(int64_t dim, float theta);

  CpuIsa isa_;
  const KernelTable& kernels_;
  ForkJoin pool_;
  std::vector<Scratch> scratch_;  // per thread
  std::vector<std::unique_ptr<RopeTable>> rope_tables_;
  OpClock clock_;
};

}  // namespace salamander::kernels

#endif  // SALAMANDER_KERNELS_CPU_CPU_OPS_H_
