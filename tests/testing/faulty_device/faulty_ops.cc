#include "tests/testing/faulty_device/faulty_ops.h"

#include <errno.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <mutex>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/base/status_macros.h"

namespace salamander::testing {
namespace {

using kernels::Matrix;
using kernels::OpKind;
using kernels::OpName;
using kernels::SparseRows;
using kernels::SparseShape;
using kernels::Weight;

constexpr char kVariable[] = "SALAMANDER_TEST_FAULT", kFrom[] = "SALAMANDER_TEST_FAULT_FROM",
               kIn[] = "SALAMANDER_TEST_FAULT_IN";
constexpr char kLogits[] = "logits", kAllocate[] = "allocate";

// Aligned for every access; neither CUDA nor the kernel gives out the lowest pages.
void* NoMemory() { return reinterpret_cast<void*>(uintptr_t{0x1000}); }

// What the process is to do wrong, and whether its device is lost.
class Fault {
 public:
  static Fault& Get() {
    static auto* const fault = new Fault;
    return *fault;
  }

  const absl::Status& parsed() const { return parsed_; }

  // One more of `op`: how it fails.
  FaultKind Next(const std::string& op) {
    if (op != op_ || !Armed() || ++calls_ != number_) return FaultKind::kNone;
    if (kind_ == FaultKind::kLost) {
      std::lock_guard lock(mutex_);
      lost_ = absl::InternalError(absl::StrCat("cuda: synchronize: the device is lost; ops under way: ", op));
    }
    return kind_;
  }
  // OK until the device is lost.
  absl::Status device() const {
    std::lock_guard lock(mutex_);
    return lost_;
  }

 private:
  Fault() {
    const char* text = std::getenv(kVariable);
    if (text == nullptr) return;
    const std::vector<std::string> parts = absl::StrSplit(text, ':');
    const std::string kind = parts.size() == 3 ? parts[2] : "";
    kind_ = kind == "address"  ? FaultKind::kAddress
            : kind == "lost"   ? FaultKind::kLost
            : kind == "memory" ? FaultKind::kMemory
                               : FaultKind::kNone;
    const bool fits = kind_ != FaultKind::kNone && (kind_ == FaultKind::kMemory) == (parts[0] == kAllocate);
    if (!fits || !absl::SimpleAtoi(parts[1], &number_)) {
      parsed_ = absl::InvalidArgumentError(
          absl::StrCat(kVariable, " must be OP:N:address, OP:N:lost or allocate:N:memory, got ", text));
      return;
    }
    const char* program = std::getenv(kIn);
    if (program != nullptr && std::string(program) != program_invocation_short_name) return;
    op_ = parts[0];
    if (const char* file = std::getenv(kFrom); file != nullptr) armed_by_ = file;
  }

  bool Armed() {
    if (!armed_ && (armed_by_.empty() || access(armed_by_.c_str(), F_OK) == 0)) armed_ = true;
    return armed_;
  }

  std::string op_, armed_by_;
  std::atomic<bool> armed_{false};
  int64_t number_ = 0;
  FaultKind kind_ = FaultKind::kNone;
  absl::Status parsed_;
  std::atomic<int64_t> calls_{0};
  mutable std::mutex mutex_;
  absl::Status lost_;
};

absl::Status Device() { return Fault::Get().device(); }

// Calls `op`, which gets its output's address, unless the device is lost.
template <typename T, typename Op>
absl::Status Run(const char* name, T* output, const Op& op) {
  const FaultKind fault = Fault::Get().Next(name);
  if (fault == FaultKind::kLost) return absl::OkStatus();  // as a launch that fails later
  RETURN_IF_ERROR(Device());
  return op(fault == FaultKind::kAddress ? static_cast<T*>(NoMemory()) : output);
}
template <typename Op>
absl::Status Run(OpKind kind, const Matrix& output, const Op& op) {
  return Run(OpName(kind), output.data, [&](void* data) {
    Matrix moved = output;
    moved.data = data;
    return op(moved);
  });
}
// Of ops that write to pages.
template <typename Op>
absl::Status Run(OpKind kind, absl::Span<const SparseRows> sequences, const Op& op) {
  std::byte none{};
  return Run(OpName(kind), &none, [&](const std::byte* data) {
    if (data == &none) return op(sequences);
    std::vector<SparseRows> moved(sequences.begin(), sequences.end());
    for (SparseRows& rows : moved) rows.pages = reinterpret_cast<std::byte* const*>(data);
    return op(absl::MakeConstSpan(moved));
  });
}

class FaultyEvent final : public kernels::Event {
 public:
  explicit FaultyEvent(std::shared_ptr<kernels::Event> real) : real_(std::move(real)) {}
  absl::Status Wait() override {
    RETURN_IF_ERROR(Device());
    return real_->Wait();
  }
  bool Done() override { return real_->Done(); }

 private:
  const std::shared_ptr<kernels::Event> real_;
};

class FaultyCopier final : public kernels::Copier {
 public:
  explicit FaultyCopier(std::unique_ptr<kernels::Copier> real) : real_(std::move(real)) {}
  absl::Status ToHost(void* to_host, const void* from, int64_t bytes) override {
    RETURN_IF_ERROR(Device());
    return real_->ToHost(to_host, from, bytes);
  }
  absl::Status ToDevice(void* to, const void* from_host, int64_t bytes) override {
    RETURN_IF_ERROR(Device());
    return real_->ToDevice(to, from_host, bytes);
  }
  absl::Status OnDevice(void* to, const void* from, int64_t bytes) override {
    RETURN_IF_ERROR(Device());
    return real_->OnDevice(to, from, bytes);
  }
  absl::Status Wait() override {
    RETURN_IF_ERROR(Device());
    return real_->Wait();
  }

 private:
  const std::unique_ptr<kernels::Copier> real_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<kernels::Ops>> MakeFaulty(std::unique_ptr<kernels::Ops> real) {
  RETURN_IF_ERROR(Fault::Get().parsed());
  return std::make_unique<FaultyOps>(std::move(real));
}

absl::StatusOr<void*> FaultyOps::Allocate(int64_t bytes) {
  if (Fault::Get().Next(kAllocate) == FaultKind::kMemory) {
    return absl::ResourceExhaustedError(absl::StrCat("cuda: no ", bytes, " bytes of device memory, as the test wants"));
  }
  RETURN_IF_ERROR(Device());
  return real_->Allocate(bytes);
}

absl::Status FaultyOps::CopyToDevice(void* to, const void* from_host, int64_t bytes) {
  RETURN_IF_ERROR(Device());
  return real_->CopyToDevice(to, from_host, bytes);
}

absl::Status FaultyOps::CopyToHost(void* to_host, const void* from, int64_t bytes) {
  RETURN_IF_ERROR(Device());
  return real_->CopyToHost(to_host, from, bytes);
}

absl::Status FaultyOps::Zero(void* memory, int64_t bytes) {
  RETURN_IF_ERROR(Device());
  return real_->Zero(memory, bytes);
}

absl::Status FaultyOps::Synchronize() {
  RETURN_IF_ERROR(Device());
  return real_->Synchronize();
}

std::shared_ptr<kernels::Event> FaultyOps::Record() { return std::make_shared<FaultyEvent>(real_->Record()); }

absl::StatusOr<std::unique_ptr<kernels::Copier>> FaultyOps::NewCopier() {
  RETURN_IF_ERROR(Device());
  ASSIGN_OR_RETURN(std::unique_ptr<kernels::Copier> copier, real_->NewCopier());
  return std::make_unique<FaultyCopier>(std::move(copier));
}

absl::Status FaultyOps::MatMul(const Matrix& x, const Weight& weight, const float* bias, const Matrix& y) {
  return Run(OpKind::kMatMul, y, [&](const Matrix& to) { return real_->MatMul(x, weight, bias, to); });
}

absl::Status FaultyOps::MatMulLogits(const Matrix& x, const Weight& weight, float* logits, int64_t logits_stride) {
  return Run(kLogits, logits, [&](float* to) { return real_->MatMulLogits(x, weight, to, logits_stride); });
}

absl::Status FaultyOps::Embed(absl::Span<const int32_t> tokens, const Weight& table, float scale,
                              const Matrix& hidden) {
  return Run(OpKind::kEmbed, hidden, [&](const Matrix& to) { return real_->Embed(tokens, table, scale, to); });
}

absl::Status FaultyOps::AddRmsNorm(const Matrix& hidden, const Matrix& delta, float delta_scale, const float* norm,
                                   float eps, float x_scale, const Matrix& x) {
  return Run(OpKind::kAddRmsNorm, hidden,
             [&](const Matrix& to) { return real_->AddRmsNorm(to, delta, delta_scale, norm, eps, x_scale, x); });
}

absl::Status FaultyOps::HeadNormRope(const Matrix& x, int64_t head_dim, const float* norm, float eps, float theta,
                                     absl::Span<const int64_t> positions) {
  return Run(OpKind::kHeadNormRope, x,
             [&](const Matrix& to) { return real_->HeadNormRope(to, head_dim, norm, eps, theta, positions); });
}

absl::Status FaultyOps::SiluMul(const Matrix& gate_up, const Matrix& out) {
  return Run(OpKind::kSiluMul, out, [&](const Matrix& to) { return real_->SiluMul(gate_up, to); });
}

absl::Status FaultyOps::NormGate(const Matrix& x, const float* norm, float eps, const Matrix& gate) {
  return Run(OpKind::kNormGate, x, [&](const Matrix& to) { return real_->NormGate(to, norm, eps, gate); });
}

absl::Status FaultyOps::Lightning(const kernels::LightningShape& shape, const Matrix& q, const Matrix& k,
                                  const Matrix& v, absl::Span<const kernels::LightningRows> sequences,
                                  const Matrix& out) {
  return Run(OpKind::kLightning, out,
             [&](const Matrix& to) { return real_->Lightning(shape, q, k, v, sequences, to); });
}

absl::Status FaultyOps::AppendKv(const SparseShape& shape, const Matrix& k, const Matrix& v,
                                 absl::Span<const SparseRows> sequences) {
  return Run(OpKind::kAppendKv, sequences,
             [&](absl::Span<const SparseRows> to) { return real_->AppendKv(shape, k, v, to); });
}

absl::Status FaultyOps::PoolTiers(const SparseShape& shape, absl::Span<const SparseRows> sequences) {
  return Run(OpKind::kPoolTiers, sequences,
             [&](absl::Span<const SparseRows> to) { return real_->PoolTiers(shape, to); });
}

absl::Status FaultyOps::SelectBlocks(const SparseShape& shape, const Matrix& q, absl::Span<const SparseRows> sequences,
                                     int32_t* blocks) {
  return Run(OpName(OpKind::kSelectBlocks), blocks,
             [&](int32_t* to) { return real_->SelectBlocks(shape, q, sequences, to); });
}

absl::Status FaultyOps::AttendBlocks(const SparseShape& shape, const Matrix& q, absl::Span<const SparseRows> sequences,
                                     const int32_t* blocks, const Matrix& out) {
  return Run(OpKind::kAttendBlocks, out,
             [&](const Matrix& to) { return real_->AttendBlocks(shape, q, sequences, blocks, to); });
}

absl::Status FaultyOps::AttendDense(const SparseShape& shape, const Matrix& q, absl::Span<const SparseRows> sequences,
                                    const Matrix& out) {
  return Run(OpKind::kAttendDense, out, [&](const Matrix& to) { return real_->AttendDense(shape, q, sequences, to); });
}

absl::Status FaultyOps::Sample(const Matrix& logits, absl::Span<const kernels::SampleRow> rows,
                               absl::Span<const kernels::LogitEdit> edits, kernels::SampledToken* tokens,
                               kernels::TokenLogprob* top, int64_t top_stride) {
  return Run(OpKind::kSample, logits,
             [&](const Matrix& from) { return real_->Sample(from, rows, edits, tokens, top, top_stride); });
}

}  // namespace salamander::testing
