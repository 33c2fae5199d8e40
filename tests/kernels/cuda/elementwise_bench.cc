// What the row-wise kernels and those of pages take at the released shape: spans of 8192 tokens, and decode steps,
// whose few rows come from the L2 cache and take what a launch takes.
#include <string>
#include <vector>

#include "absl/strings/str_format.h"
#include "kernels/cuda/launch.h"
#include "tests/kernels/cuda/bench.h"

namespace salamander::kernels::cuda {
namespace {

constexpr int64_t kHidden = 4096, kIntermediate = 16384, kVocabulary = 73448, kHeads = 32, kDim = 128;
constexpr int64_t kSpan = 8192;
constexpr KvLayout kKv = {.kv_heads = 2, .head_dim = kDim, .type = DType::kBFloat16};
constexpr int64_t kKvCols = kKv.kv_heads * kDim;
// q, k, v and z of a lightning layer.
constexpr int64_t kFused = 4 * kHidden;

template <typename T>
T* Upload(const std::vector<T>& values) {
  T* data = BenchArray<T>(values.size());
  Check(cudaMemcpy(data, values.data(), values.size() * sizeof(T), cudaMemcpyHostToDevice));
  return data;
}

void RowCases(int64_t rows) {
  const std::string at = absl::StrFormat(" %d rows", rows);
  const double row_bytes = static_cast<double>(rows) * kHidden * sizeof(bf16);  // of bf16; of float32 twice that
  std::vector<int32_t> ids;
  std::vector<int64_t> places;
  for (int64_t i = 0; i < rows; ++i) {
    ids.push_back(static_cast<int32_t>(i * 9901 % kVocabulary));
    places.push_back(1000000 + i);
  }
  const int32_t* tokens = Upload(ids);
  const int64_t* positions = Upload(places);
  static const bf16* const table = BenchArray<bf16>(kVocabulary * kHidden);
  static const float* const norm = BenchArray<float>(kHidden);
  static float* const hidden = BenchArray<float>(kSpan * kHidden);
  static bf16* const delta = BenchArray<bf16>(kSpan * kHidden);
  static bf16* const x = BenchArray<bf16>(kSpan * kHidden);
  static bf16* const fused = BenchArray<bf16>(kSpan * kFused);
  static bf16* const gate_up = BenchArray<bf16>(kSpan * 2 * kIntermediate);
  static bf16* const activated = BenchArray<bf16>(kSpan * kIntermediate);
  const FloatRows h = {hidden, kHidden};
  const Rows out = {x, kHidden};

  auto report = [&](const char* name, double bytes, const std::function<cudaError_t(cudaStream_t)>& launch) {
    Report(name + at, Microseconds([&](int, cudaStream_t stream) { Check(launch(stream)); }), 0, bytes);
  };
  report("Embed", 3 * row_bytes,
         [&](cudaStream_t stream) { return Embed(tokens, rows, kHidden, table, 12, h, stream); });
  report("AddRmsNorm", 6 * row_bytes, [&](cudaStream_t stream) {
    return AddRmsNorm(h, {delta, kHidden}, 0.25f, norm, 1e-6f, 1, out, rows, kHidden, stream);
  });
  report("HeadNormRope q", 2 * row_bytes, [&](cudaStream_t stream) {
    return HeadNormRope({fused, kFused}, rows, kHeads, kDim, norm, 1e-6f, 10000, positions, 0, stream);
  });
  report("SiluMul", 3 * row_bytes * kIntermediate / kHidden, [&](cudaStream_t stream) {
    return SiluMul({gate_up, 2 * kIntermediate}, {activated, kIntermediate}, rows, kIntermediate, stream);
  });
  report("NormGate", 3 * row_bytes, [&](cudaStream_t stream) {
    return NormGate(out, norm, 1e-6f, {fused + 3 * kHidden, kFused}, rows, kHidden, stream);
  });
}

// `count` sequences of `rows` tokens at `position`.
void KvCases(int64_t count, int64_t rows, int64_t position) {
  const std::string at = absl::StrFormat(" %d x %d rows at %d", count, rows, position);
  std::vector<SparseSequence> sequences;
  const int64_t pages = (position + rows) / kPageTokens + 1;
  for (int64_t s = 0; s < count; ++s) {
    // Only the last pages are touched.
    std::vector<std::byte*> table(pages, nullptr);
    for (int64_t page = position / kPageTokens - 1; page < pages; ++page) {
      table[page] = BenchArray<std::byte>(kKv.page_bytes());
    }
    sequences.push_back({s * rows, rows, position, Upload(table)});
  }
  const SparseParams params = {
      .kv = kKv, .heads = kHeads, .sequences = Upload(sequences), .count = count, .max_rows = rows};
  const bf16* k = BenchArray<bf16>(count * rows * 2 * kKvCols);
  const double keys = static_cast<double>(count * rows) * kKvCols * sizeof(bf16);
  Report("AppendKv" + at, Microseconds([&](int, cudaStream_t stream) {
           Check(AppendKv(params, {k, 2 * kKvCols}, {k + kKvCols, 2 * kKvCols}, stream));
         }),
         0, 4 * keys);
  Report("PoolTiers" + at, Microseconds([&](int, cudaStream_t stream) { Check(PoolTiers(params, stream)); }), 0,
         keys * (1 + 5.0 / 64));
}

}  // namespace
}  // namespace salamander::kernels::cuda

int main() {
  using namespace salamander::kernels::cuda;
  if (!PrintDevice()) return 0;
  for (int64_t rows : {kSpan, int64_t{1}, int64_t{8}, int64_t{32}}) RowCases(rows);
  KvCases(1, kSpan, 131072);
  // The last token of a block ends a window of each tier; the first of one begins a block.
  for (int64_t count : {1, 8, 32, 64}) {
    KvCases(count, 1, 131072 + 63);
    KvCases(count, 1, 131072);
  }
}
