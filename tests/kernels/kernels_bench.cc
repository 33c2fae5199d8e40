// What each operation of the CPU backend takes for the shapes of the demo model, on one thread: microseconds a token,
// GFLOP/s, and the share of the rate of a large square product. Not a test: `make bench` runs it.
//
// Times are CPU time of the thread, so that other processes on the machine count little.
#include <oneapi/dnnl/dnnl.h>
#include <time.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <functional>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "kernels/ops.h"

ABSL_FLAG(std::vector<std::string>, context, (std::vector<std::string>{"8192", "32768", "131072"}), "tokens before");
ABSL_FLAG(int, rows, 2048, "tokens of a prompt in one call");
ABSL_FLAG(int, batch, 16, "sequences of a decode step");
ABSL_FLAG(std::string, isa, "", "portable, avx2 or avx512; default: the best of this machine");

namespace salamander::kernels {
namespace {

constexpr int64_t kHidden = 192, kIntermediate = 480, kVocabulary = 3072, kHeads = 4, kDim = 64;
constexpr int64_t kProjection = 4 * kHeads * kDim;  // of a lightning layer: q, k, v, gate

double CpuSeconds() {
  timespec now;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

// The fastest of a few runs, each long enough to be measured.
double SecondsOf(const std::function<void()>& work) {
  double begin = CpuSeconds();
  work();
  const int repeats = std::clamp(static_cast<int>(0.02 / std::max(1e-7, CpuSeconds() - begin)), 1, 10000);
  double best = 1e9;
  for (int round = 0; round < 5; ++round) {
    begin = CpuSeconds();
    for (int i = 0; i < repeats; ++i) work();
    best = std::min(best, (CpuSeconds() - begin) / repeats);
  }
  return best;
}

class Bench {
 public:
  explicit Bench(std::unique_ptr<Ops> ops) : ops_(std::move(ops)) {
    const int64_t n = 1024;
    float *a = Floats(n * n), *b = Floats(n * n), *c = Floats(n * n);
    const double seconds = SecondsOf([&] { dnnl_sgemm('N', 'N', n, n, n, 1, a, n, b, n, 0, c, n); });
    peak_ = 2e-9 * static_cast<double>(n * n * n) / seconds;
    std::printf("%s; oneDNN sgemm of %d x %d: %.1f GFLOP/s\n", ops_->name().c_str(), static_cast<int>(n),
                static_cast<int>(n), peak_);
  }
  ~Bench() {
    for (void* memory : owned_) ops_->Free(memory);
  }

  void Products(int64_t rows) {
    struct Shape {
      const char* name;
      int64_t in, out;
    };
    for (const Shape& s : {Shape{"q k v gate", kHidden, kProjection}, Shape{"o", kHeads * kDim, kHidden},
                           Shape{"gate up", kHidden, 2 * kIntermediate}, Shape{"down", kIntermediate, kHidden},
                           Shape{"logits", kHidden, kVocabulary}, Shape{"4096 x 4096", 4096, 4096}}) {
      const WeightPart part = {Floats(s.in * s.out), DType::kFloat32, s.out, s.in};
      auto weight = ops_->PrepareWeight(absl::MakeConstSpan(&part, 1)).value();
      const Matrix x = Random(rows, s.in), y = Random(rows, s.out);
      const double seconds = SecondsOf([&] { Check(ops_->MatMul(x, *weight, nullptr, y)); });
      Print("matmul " + std::string(s.name), rows, 0, seconds, 2 * rows * s.in * s.out);
      const double plain = SecondsOf([&] {
        dnnl_sgemm('N', 'N', rows, s.out, s.in, 1, static_cast<float*>(x.data), s.in,
                   static_cast<const float*>(part.data), s.out, 0, static_cast<float*>(y.data), s.out);
      });
      Print("  oneDNN sgemm", rows, 0, plain, 2 * rows * s.in * s.out);
    }
  }

  void Elementwise(int64_t rows) {
    const Matrix hidden = Random(rows, kHidden), delta = Random(rows, kHidden), x = Random(rows, kHidden);
    const Matrix projection = Random(rows, kProjection), wide = Random(rows, 2 * kIntermediate);
    const Matrix narrow = Random(rows, kIntermediate), mixed = Random(rows, kHeads * kDim);
    const float* norm = Floats(1024);
    const Matrix q = {projection.data, rows, kHeads * kDim, kProjection};
    std::vector<int64_t> positions(rows);
    for (int64_t i = 0; i < rows; ++i) positions[i] = 100000 + i;
    auto time = [&](const char* name, const std::function<absl::Status()>& op) {
      Print(name, rows, 0, SecondsOf([&] { Check(op()); }), 0);
    };
    time("add_rms_norm", [&] { return ops_->AddRmsNorm(hidden, delta, 1e-9f, norm, 1e-6f, 1, x); });
    time("head_norm_rope", [&] { return ops_->HeadNormRope(q, kDim, norm, 1e-6f, 10000, positions); });
    time("  other positions each time", [&] {
      for (int64_t& p : positions) p += rows;
      return ops_->HeadNormRope(q, kDim, norm, 1e-6f, 10000, positions);
    });
    time("silu_mul", [&] { return ops_->SiluMul(wide, narrow); });
    time("norm_gate", [&] { return ops_->NormGate(mixed, norm, 1e-6f, q); });
  }

  void Lightning(int64_t rows, int64_t sequences) {
    const Matrix p = Random(rows * sequences, kProjection), out = Random(rows * sequences, kHeads * kDim);
    auto part = [&](int64_t i) {
      return Matrix{static_cast<float*>(p.data) + i * kHeads * kDim, p.rows, kHeads * kDim, kProjection};
    };
    const LightningShape shape = {kHeads, kHeads, kDim, 0.125f, {0.25f, 0.0625f, 0.015625f, 0.00390625f}};
    std::vector<LightningRows> seqs;
    for (int64_t i = 0; i < sequences; ++i) seqs.push_back({i * rows, rows, 0, Floats(kHeads * kDim * kDim)});
    const double seconds = SecondsOf([&] { Check(ops_->Lightning(shape, part(0), part(1), part(2), seqs, out)); });
    // Per token and head: the state once out and once in, and in a chunk half of the tokens twice.
    const int64_t inside = rows > 1 ? 65 : 0;
    Print("lightning", rows * sequences, 0, seconds, rows * sequences * kHeads * (4 * kDim * kDim + 2 * kDim * inside));
  }

  // The last `rows` tokens of a context. Neighbouring queries correlate by `alike`; with 0.95 they share blocks about
  // as much as those of the demo model on text do.
  void Sparse(int64_t context, int64_t rows, int64_t sequences, float alike) {
    const SparseShape shape = {kHeads, {1, kDim, DType::kFloat32}, 1, 8, 24};
    std::vector<std::byte*> pages;
    for (int64_t i = 0; i * kPageTokens < context; ++i) {
      pages.push_back(static_cast<std::byte*>(Allocate(shape.kv.page_bytes())));
    }
    const Matrix k = Random(context, kDim), v = Random(context, kDim);
    const SparseRows all = {0, context, 0, pages.data()};
    const double append = SecondsOf([&] { Check(ops_->AppendKv(shape, k, v, absl::MakeConstSpan(&all, 1))); });
    const double pool = SecondsOf([&] { Check(ops_->PoolTiers(shape, absl::MakeConstSpan(&all, 1))); });
    Print("append_kv", context, context, append, 0);
    Print("pool_tiers", context, context, pool, 0);

    const Matrix q = Random(rows * sequences, kHeads * kDim), out = Random(rows * sequences, kHeads * kDim);
    auto* numbers = static_cast<float*>(q.data);
    for (int64_t i = 0; i < q.rows * q.cols; ++i) {
      numbers[i] *= 2;
      if (i >= q.cols) numbers[i] = alike * numbers[i - q.cols] + std::sqrt(1 - alike * alike) * numbers[i];
    }
    std::vector<SparseRows> seqs;
    for (int64_t i = 0; i < sequences; ++i) seqs.push_back({i * rows, rows, context - rows, pages.data()});
    auto* blocks = static_cast<int32_t*>(Allocate(q.rows * shape.top_blocks * 4));
    const double select = SecondsOf([&] { Check(ops_->SelectBlocks(shape, q, seqs, blocks)); });
    const int64_t middle = context - rows / 2;
    Print("select_blocks", q.rows, context, select, q.rows * 2 * kHeads * kDim * (K1Count(middle) + K2Count(middle)));
    const double attend = SecondsOf([&] { Check(ops_->AttendBlocks(shape, q, seqs, blocks, out)); });
    Print("attend_blocks", q.rows, context, attend,
          q.rows * 4 * kHeads * kDim * (24 * kBlockTokens - (rows > 1 ? kBlockTokens / 2 : 0)));
    if (rows > 1) std::printf("  of %.2f blocks fetched per token\n", FetchedBlocks(blocks, rows, shape.top_blocks));
    if (context > 8192) return;
    const double dense = SecondsOf([&] { Check(ops_->AttendDense(shape, q, seqs, out)); });
    Print("attend_dense", q.rows, context, dense, q.rows * 4 * kHeads * kDim * middle);
  }

 private:
  static void Check(const absl::Status& status) {
    if (!status.ok()) std::fprintf(stderr, "%s\n", status.ToString().c_str());
  }
  // Different blocks of each 64 tokens, which are fetched together, per token.
  static double FetchedBlocks(const int32_t* blocks, int64_t rows, int64_t top_blocks) {
    size_t fetched = 0;
    for (int64_t row = 0; row < rows; row += 64) {
      const int64_t end = std::min(rows, row + 64);
      fetched += std::set<int32_t>(blocks + row * top_blocks, blocks + end * top_blocks).size();
    }
    return static_cast<double>(fetched) / static_cast<double>(rows);
  }
  void* Allocate(int64_t bytes) {
    owned_.push_back(ops_->Allocate(bytes).value());
    return owned_.back();
  }
  float* Floats(int64_t count) {
    auto* out = static_cast<float*>(Allocate(count * 4));
    for (int64_t i = 0; i < count; ++i) out[i] = normal_(generator_);
    return out;
  }
  Matrix Random(int64_t rows, int64_t cols) { return {Floats(rows * cols), rows, cols, cols}; }

  void Print(const std::string& name, int64_t tokens, int64_t context, double seconds, int64_t flop) const {
    std::printf("%-32s %6lld tokens", name.c_str(), static_cast<long long>(tokens));
    if (context > 0) {
      std::printf(" at %7lld", static_cast<long long>(context));
    } else {
      std::printf("           ");
    }
    std::printf("  %9.3f us a token", 1e6 * seconds / static_cast<double>(tokens));
    const double rate = 1e-9 * static_cast<double>(flop) / seconds;
    if (flop > 0) std::printf("  %6.1f GFLOP/s  %3.0f%%", rate, 100 * rate / peak_);
    std::printf("\n");
    std::fflush(stdout);
  }

  std::unique_ptr<Ops> ops_;
  double peak_ = 0;
  std::mt19937 generator_{7};
  std::normal_distribution<float> normal_;
  std::vector<void*> owned_;
};

CpuIsa ChosenIsa() {
  for (CpuIsa isa : {CpuIsa::kPortable, CpuIsa::kAvx2, CpuIsa::kAvx512}) {
    if (CpuIsaName(isa) == absl::GetFlag(FLAGS_isa)) return isa;
  }
  return DetectCpuIsa();
}

int Run() {
  auto ops = CreateCpuOps(1, ChosenIsa());
  if (!ops.ok()) {
    std::fprintf(stderr, "%s\n", ops.status().ToString().c_str());
    return 1;
  }
  const int64_t rows = absl::GetFlag(FLAGS_rows), batch = absl::GetFlag(FLAGS_batch);
  Bench bench(*std::move(ops));
  for (int64_t n : {rows, batch, int64_t{1}}) bench.Products(n);
  for (int64_t n : {rows, int64_t{1}}) bench.Elementwise(n);
  bench.Lightning(rows, 1);
  bench.Lightning(1, batch);
  for (const std::string& text : absl::GetFlag(FLAGS_context)) {
    const int64_t context = std::stoll(text);
    for (float alike : {0.0f, 0.95f}) bench.Sparse(context, std::min(rows, context), 1, alike);
    for (int64_t n : {batch, int64_t{1}}) bench.Sparse(context, 1, n, 0);
  }
  return 0;
}

}  // namespace
}  // namespace salamander::kernels

int main(int argc, char** argv) {
  absl::ParseCommandLine(argc, argv);
  return salamander::kernels::Run();
}
