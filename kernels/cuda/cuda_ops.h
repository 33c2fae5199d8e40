// The CUDA backend: queues every operation on one stream, as kernels of launch.h or products of cuBLASLt.
//
// One workspace serves all ops, since they run one after the other. A list whose sequences have one row each goes to
// the kernels' decode form; where a single sequence of the list has more rows, the prefill form takes them all.
#ifndef SALAMANDER_KERNELS_CUDA_CUDA_OPS_H_
#define SALAMANDER_KERNELS_CUDA_CUDA_OPS_H_

#include <cuda_runtime_api.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/cuda/cuda_status.h"
#include "kernels/cuda/device_memory.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/list_ring.h"
#include "kernels/cuda/lt_matmul.h"
#include "kernels/cuda/op_timer.h"
#include "kernels/cuda/repeats.h"
#include "kernels/cuda/staged_copy.h"
#include "kernels/ops.h"

namespace salamander::kernels::cuda {

class CudaOps : public Ops {
 public:
  // For all kernels and cuBLASLt. An op that needs more is RESOURCE_EXHAUSTED.
  static constexpr int64_t kWorkspaceBytes = int64_t{512} << 20;

  // As CreateCudaOps (kernels/cuda.h).
  static absl::StatusOr<std::unique_ptr<Ops>> Create(int device);
  ~CudaOps() override;

  std::string name() const override { return name_; }
  DType activation_type() const override { return DType::kBFloat16; }

  absl::StatusOr<void*> Allocate(int64_t bytes) override;
  void Free(void* memory) override;
  absl::Status CopyToDevice(void* to, const void* from_host, int64_t bytes) override;
  absl::Status CopyToHost(void* to_host, const void* from, int64_t bytes) override;
  absl::Status Zero(void* memory, int64_t bytes) override;
  absl::Status Synchronize() override;
  int64_t own_bytes() const override { return own_bytes_ + repeats_->bytes(); }
  absl::StatusOr<int64_t> MemoryBytes() override;
  bool host_memory() const override { return false; }
  absl::StatusOr<void*> AllocateHost(int64_t bytes) override;
  void FreeHost(void* memory) override;
  std::shared_ptr<Event> Record() override;
  absl::StatusOr<std::unique_ptr<Copier>> NewCopier() override;

  bool records_repeats() const override { return true; }
  absl::Status BeginRepeat(const RepeatKey& key) override;
  absl::Status EndRepeat() override;

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

  std::vector<std::pair<std::string, double>> OpSeconds() const override { return timer_.Seconds(); }
  void SetTiming(bool on) override { timer_.SetOn(on); }

 private:
  // A list of the host that an op's kernels read, if any.
  struct HostList {
    const void* data = nullptr;
    int64_t bytes = 0;
  };
  // What holds of every sequence of a list, see SparseParams. No rows at all: nothing to do.
  struct Bounds {
    int64_t max_rows = 0;
    int64_t max_tokens = 0;
  };

  CudaOps(int device, Arch arch, int multiprocessors, std::string name)
      : device_(device), arch_(arch), multiprocessors_(multiprocessors), name_(std::move(name)) {}
  absl::Status Initialize();

  // Before any call of CUDA: the device may be lost, and the calling thread new.
  absl::Status Enter() const;
  // One op: `launch`, with the list's place on the device, unless a repeat replays it.
  absl::Status Run(const OpSignature& op, HostList list,
                   absl::FunctionRef<absl::Status(const void* device_list)> launch);
  absl::Status RunChecked(const OpSignature& op, HostList list,
                          absl::FunctionRef<absl::Status(const void* device_list)> launch);
  // The same of launches that return CUDA's error.
  absl::Status Launch(const OpSignature& op, HostList list,
                      absl::FunctionRef<cudaError_t(const void* device_list)> launch);
  absl::StatusOr<const void*> Upload(HostList list);

  // A failure before Run: the repeat that is under way, if any, is given up.
  absl::Status Note(absl::Status status) const;
  // INVALID_ARGUMENT if a repeat is under way and the list is not as its key says.
  template <typename T>
  absl::StatusOr<Bounds> BoundsOf(OpKind kind, absl::Span<const T> sequences) const;
  // INVALID_ARGUMENT naming the field that the kernels cannot do.
  absl::Status CheckHeadDim(OpKind kind, int64_t head_dim) const;
  absl::Status CheckHeads(OpKind kind, int64_t heads, int64_t kv_heads, int64_t head_dim) const;
  absl::StatusOr<SparseParams> ParamsOf(OpKind kind, const SparseShape& shape,
                                        absl::Span<const SparseRows> sequences) const;
  absl::Status CheckWorkspace(OpKind kind, int64_t bytes) const;
  absl::StatusOr<const float*> SlopesOnDevice(const std::vector<float>& slopes);
  absl::Status Multiply(const Matrix& x, const Weight& weight, const float* bias, DType type, void* y,
                        int64_t y_stride);
  // Copies the rows that have edits into `copies`, one after the other, and edits them there; `items` point to them
  // then.
  absl::Status EditRows(const Matrix& logits, absl::Span<const LogitEdit> edits, float* copies,
                        std::vector<SampleItem>& items);
  absl::Status FillWeight(const WeightPart& part, bf16* to);

  const int device_;
  const Arch arch_;
  const int multiprocessors_;
  const std::string name_;
  const std::shared_ptr<FaultLatch> faults_ = std::make_shared<FaultLatch>(device_);
  cudaStream_t stream_ = nullptr;
  OpTimer timer_;
  std::unique_ptr<DeviceMemory> memory_;
  std::unique_ptr<StagedCopy> staged_;
  std::unique_ptr<ListRing> lists_;
  std::unique_ptr<LtMatMul> matmul_;
  std::unique_ptr<Repeats> repeats_;
  void* workspace_ = nullptr;
  int64_t own_bytes_ = 0;
  std::vector<std::pair<std::vector<float>, const float*>> slopes_;  // of the shapes seen, on the device
};

}  // namespace salamander::kernels::cuda

#endif  // SALAMANDER_KERNELS_CUDA_CUDA_OPS_H_
