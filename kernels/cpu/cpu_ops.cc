// Memory, products and element-wise operations.
#include "kernels/cpu/cpu_ops.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>

#include "absl/strings/str_format.h"
#include "kernels/cpu/sample.h"

namespace salamander::kernels {
namespace {

const KernelTable& KernelsFor(CpuIsa isa) {
#if defined(__x86_64__)
  if (isa == CpuIsa::kAvx512) return Avx512Kernels();
  if (isa == CpuIsa::kAvx2) return Avx2Kernels();
#endif
  return PortableKernels();
}

// Rows from `row` on; null stays null.
Rows From(const Matrix& m, int64_t row) {
  if (m.data == nullptr) return {nullptr, 0};
  return {static_cast<float*>(m.data) + row * m.stride, m.stride};
}

// Ops have ended when they return.
class CpuEvent : public Event {
 public:
  absl::Status Wait() override { return absl::OkStatus(); }
  bool Done() override { return true; }
};

class CpuCopier : public Copier {
 public:
  absl::Status ToHost(void* to_host, const void* from, int64_t bytes) override { return Copy(to_host, from, bytes); }
  absl::Status ToDevice(void* to, const void* from_host, int64_t bytes) override { return Copy(to, from_host, bytes); }
  absl::Status OnDevice(void* to, const void* from, int64_t bytes) override { return Copy(to, from, bytes); }
  absl::Status Wait() override { return absl::OkStatus(); }

 private:
  static absl::Status Copy(void* to, const void* from, int64_t bytes) {
    std::memcpy(to, from, bytes);
    return absl::OkStatus();
  }
};

}  // namespace

CpuOps::CpuOps(int threads, CpuIsa isa) : isa_(isa), kernels_(KernelsFor(isa)), pool_(threads), scratch_(threads) {}

std::string CpuOps::name() const {
  return absl::StrFormat("cpu (%s, %d thread%s)", CpuIsaName(isa_), pool_.threads(), pool_.threads() == 1 ? "" : "s");
}

absl::StatusOr<void*> CpuOps::Allocate(int64_t bytes) {
  void* memory = std::aligned_alloc(64, (std::max<int64_t>(bytes, 1) + 63) / 64 * 64);
  if (memory == nullptr) return absl::ResourceExhaustedError(absl::StrFormat("no memory for %d bytes", bytes));
  return memory;
}

void CpuOps::Free(void* memory) { std::free(memory); }

absl::Status CpuOps::CopyToDevice(void* to, const void* from_host, int64_t bytes) {
  std::memcpy(to, from_host, bytes);
  return absl::OkStatus();
}

absl::Status CpuOps::CopyToHost(void* to_host, const void* from, int64_t bytes) {
  std::memcpy(to_host, from, bytes);
  return absl::OkStatus();
}

absl::Status CpuOps::Zero(void* memory, int64_t bytes) {
  std::memset(memory, 0, bytes);
  return absl::OkStatus();
}

absl::StatusOr<int64_t> CpuOps::MemoryBytes() {
  std::ifstream meminfo("/proc/meminfo");
  for (std::string line; std::getline(meminfo, line);) {
    long long kibibytes = 0;
    if (std::sscanf(line.c_str(), "MemAvailable: %lld kB", &kibibytes) == 1) return kibibytes * 1024;
  }
  return absl::InternalError("/proc/meminfo has no MemAvailable");
}

std::shared_ptr<Event> CpuOps::Record() { return std::make_shared<CpuEvent>(); }

absl::StatusOr<std::unique_ptr<Copier>> CpuOps::NewCopier() { return std::make_unique<CpuCopier>(); }

absl::StatusOr<std::unique_ptr<Weight>> CpuOps::PrepareWeight(absl::Span<const WeightPart> parts) {
  return CpuWeight::Create(parts);
}

absl::Status CpuOps::MatMul(const Matrix& x, const Weight& weight, const float* bias, const Matrix& y) {
  const OpClock::Scope timing(clock_, OpKind::kMatMul);
  return Multiply(kernels_, isa_, pool_, x, static_cast<const CpuWeight&>(weight), bias, y);
}

absl::Status CpuOps::MatMulLogits(const Matrix& x, const Weight& weight, float* logits, int64_t logits_stride) {
  return MatMul(x, weight, nullptr, {logits, x.rows, weight.out_features(), logits_stride});
}

void CpuOps::ForRows(int64_t rows, absl::FunctionRef<void(int64_t, int64_t)> f) {
  // Under 16 rows the work is smaller than waking a thread.
  const int64_t step = std::clamp<int64_t>(rows / (4 * pool_.threads()), 16, 256);
  pool_.Run((rows + step - 1) / step, [&](int64_t i, int) { f(i * step, std::min((i + 1) * step, rows)); });
}

absl::Status CpuOps::Embed(absl::Span<const int32_t> tokens, const Weight& table, float scale, const Matrix& hidden) {
  const OpClock::Scope timing(clock_, OpKind::kEmbed);
  const auto& weight = static_cast<const CpuWeight&>(table);
  ForRows(static_cast<int64_t>(tokens.size()), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) weight.Gather(tokens[r], scale, From(hidden, r).data);
  });
  return absl::OkStatus();
}

absl::Status CpuOps::AddRmsNorm(const Matrix& hidden, const Matrix& delta, float delta_scale, const float* norm,
                                float eps, float x_scale, const Matrix& x) {
  const OpClock::Scope timing(clock_, OpKind::kAddRmsNorm);
  ForRows(hidden.rows, [&](int64_t begin, int64_t end) {
    kernels_.add_rms_norm({end - begin, hidden.cols, From(hidden, begin), From(delta, begin), delta_scale, norm, eps,
                           x_scale, From(x, begin)});
  });
  return absl::OkStatus();
}

RopeTable& CpuOps::RopeTableFor(int64_t dim, float theta) {
  for (auto& table : rope_tables_) {
    if (table->Serves(dim, theta)) return *table;
  }
  return *rope_tables_.emplace_back(std::make_unique<RopeTable>(dim, theta));
}

absl::Status CpuOps::HeadNormRope(const Matrix& x, int64_t head_dim, const float* norm, float eps, float theta,
                                  absl::Span<const int64_t> positions) {
  const OpClock::Scope timing(clock_, OpKind::kHeadNormRope);
  const float *cosines = nullptr, *sines = nullptr;
  if (theta != 0) {
    RopeTable& table = RopeTableFor(head_dim, theta);
    table.Prepare(positions);
    cosines = table.cosines();
    sines = table.sines();
  }
  ForRows(x.rows, [&](int64_t begin, int64_t end) {
    const int64_t at = theta != 0 ? begin * (head_dim / 2) : 0;
    kernels_.head_norm_rope(
        {end - begin, x.cols / head_dim, head_dim, From(x, begin), norm, eps, cosines + at, sines + at});
  });
  return absl::OkStatus();
}

absl::Status CpuOps::SiluMul(const Matrix& gate_up, const Matrix& out) {
  const OpClock::Scope timing(clock_, OpKind::kSiluMul);
  ForRows(out.rows, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const float* gate = From(gate_up, r).data;
      kernels_.silu_mul(gate, gate + out.cols, From(out, r).data, out.cols);
    }
  });
  return absl::OkStatus();
}

absl::Status CpuOps::NormGate(const Matrix& x, const float* norm, float eps, const Matrix& gate) {
  const OpClock::Scope timing(clock_, OpKind::kNormGate);
  ForRows(x.rows, [&](int64_t begin, int64_t end) {
    kernels_.norm_gate({end - begin, x.cols, From(x, begin), norm, eps, From(gate, begin)});
  });
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<Ops>> CreateCpuOps(int threads, CpuIsa isa) {
  if (threads < 1) return absl::InvalidArgumentError(absl::StrFormat("threads must be at least 1, got %d", threads));
  if (isa > DetectCpuIsa()) {
    return absl::InvalidArgumentError(absl::StrFormat("instruction set %s is not on this machine, its best is %s",
                                                      CpuIsaName(isa), CpuIsaName(DetectCpuIsa())));
  }
  return std::make_unique<CpuOps>(threads, isa);
}

absl::Status CpuOps::Sample(const Matrix& logits, absl::Span<const SampleRow> rows, absl::Span<const LogitEdit> edits,
                            SampledToken* tokens, TokenLogprob* top, int64_t top_stride) {
  const OpClock::Scope timing(clock_, OpKind::kSample);
  const auto count = static_cast<int64_t>(rows.size());
  std::vector<absl::Span<const LogitEdit>> edits_of(rows.size());
  for (size_t begin = 0, end = 0; begin < edits.size(); begin = end) {
    while (end < edits.size() && edits[end].row == edits[begin].row) ++end;
    edits_of[edits[begin].row] = edits.subspan(begin, end - begin);
  }
  auto sample = [&](int64_t i) {
    const auto* values = static_cast<const float*>(From(logits, i).data);
    const absl::Span<const float> row(values, logits.cols);
    tokens[i].token = SampleLogits(row, rows[i], edits_of[i]);
    if (rows[i].logprobs < 0) return;
    const int64_t likeliest = std::min({int64_t{rows[i].logprobs}, logits.cols, top_stride});
    tokens[i].logprob = LogprobsOf(row, tokens[i].token, absl::MakeSpan(top + i * top_stride, likeliest));
  };
  // Under so many logits the work is smaller than waking a thread.
  constexpr int64_t kTaskLogits = 1 << 16;
  const int64_t step = std::max<int64_t>(1, kTaskLogits / logits.cols);
  pool_.Run((count + step - 1) / step, [&](int64_t task, int) {
    for (int64_t i = task * step; i < std::min((task + 1) * step, count); ++i) sample(i);
  });
  return absl::OkStatus();
}

}  // namespace salamander::kernels
