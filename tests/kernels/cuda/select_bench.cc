// Times stage 1 at the released model's shape. Needs a GPU with 8 GiB.
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "kernels/cuda/launch.h"
#include "tests/kernels/cuda/bench.h"
#include "tests/kernels/cuda/select_context.h"

namespace salamander::kernels::cuda {
namespace {

constexpr int64_t kHeads = 32, kDim = 128, kSpan = 8192;
constexpr int64_t kSets = 4;  // decode steps of one sequence read other pages in turn, so that no cache helps
const KvLayout kKv = {2, kDim, DType::kBFloat16};

class Bench {
 public:
  // Pages for `tokens` in all, of random windows, and a table of them.
  explicit Bench(int64_t tokens) {
    cudaDeviceProp properties;
    Check(cudaGetDeviceProperties(&properties, 0));
    hopper_ = properties.major == 9;
    params_.kv = kKv;
    params_.heads = kHeads;
    params_.init_blocks = 1;
    params_.local_blocks = 32;
    params_.top_blocks = 96;
    params_.multiprocessors = properties.multiProcessorCount;

    const int64_t pages = tokens / kPageTokens;
    std::vector<std::byte*> table;
    auto* const memory = BenchArray<std::byte>(pages * kKv.page_bytes());
    const int64_t tier_bytes = kKv.page_bytes() - kKv.k1(0, 0);
    const std::vector<bf16> windows = ToBf16(RandomBf16((pages + 64) * 512, 1));
    for (int64_t page = 0; page < pages; ++page) {
      table.push_back(memory + page * kKv.page_bytes());
      Check(cudaMemcpy(table.back() + kKv.k1(0, 0), windows.data() + page * 512, tier_bytes, cudaMemcpyHostToDevice));
    }
    pages_ = Upload(table);
    q_ = Upload(ToBf16(RandomBf16(kSpan * kHeads * kDim, 2)));
    blocks_ = BenchArray<int32_t>(kSpan * kKv.kv_heads * params_.top_blocks);
  }

  // The last span of a prompt.
  void Prefill(const std::string& name, int64_t tokens) {
    const std::vector<SparseSequence> sequences = {{0, kSpan, tokens - kSpan, pages_}};
    params_.max_rows = kSpan;
    const double windows = (tokens - kSpan / 2) * (1.0 / kK1Stride + 1.0 / kK2Stride);
    for (Arch arch : {Arch::kSm80, Arch::kSm90a}) {
      if (arch == Arch::kSm90a && !hopper_) continue;
      params_.arch = arch;
      const double microseconds = Run(sequences, 1, tokens, 10);
      Report(name + (arch == Arch::kSm80 ? " sm_80" : " sm_90a"), microseconds, windows * kSpan * kHeads * kDim * 2, 0);
    }
  }

  // One step of `batch` sequences. They begin at other pages, and share some where there are many.
  void Decode(const std::string& name, int64_t batch, int64_t tokens, int64_t total) {
    std::vector<SparseSequence> sequences;
    const int64_t pages = tokens / kPageTokens, all = total / kPageTokens;
    for (int64_t i = 0; i < kSets * batch; ++i) {
      sequences.push_back({i % batch, 1, tokens - 1, pages_ + i * pages % (all - pages + 1)});
    }
    params_.max_rows = 1;
    params_.arch = hopper_ ? Arch::kSm90a : Arch::kSm80;
    const double bytes =
        static_cast<double>(batch) * tokens * (1.0 / kK1Stride + 1.0 / kK2Stride) * kKv.kv_heads * kDim * 2;
    Report(name + " batch " + std::to_string(batch), Run(sequences, batch, tokens, 20), 0, bytes);
  }

 private:
  template <typename T>
  static T* Upload(const std::vector<T>& values) {
    T* const data = BenchArray<T>(static_cast<int64_t>(values.size()));
    Check(cudaMemcpy(data, values.data(), values.size() * sizeof(T), cudaMemcpyHostToDevice));
    return data;
  }

  // `count` sequences at a time, in turn.
  double Run(const std::vector<SparseSequence>& sequences, int64_t count, int64_t tokens, int launches) {
    const SparseSequence* const all = Upload(sequences);
    const auto sets = static_cast<int64_t>(sequences.size()) / count;
    params_.count = count;
    params_.max_tokens = tokens;
    auto* const workspace = BenchArray<std::byte>(SelectWorkspaceBytes(params_) + 1);
    return Microseconds(
        [&](int i, cudaStream_t stream) {
          params_.sequences = all + i % sets * count;
          Check(SelectBlocks(params_, {q_, kHeads * kDim}, blocks_, workspace, stream));
        },
        launches);
  }

  SparseParams params_;
  bool hopper_ = false;
  std::byte** pages_ = nullptr;
  bf16* q_ = nullptr;
  int32_t* blocks_ = nullptr;
};

int Main() {
  if (!PrintDevice()) return 0;
  constexpr int64_t k128K = 131072, k1M = 1048576, kTotal = 6 * k1M;
  Bench bench(kTotal);
  bench.Prefill("select 8192 rows at 128K", k128K);
  bench.Prefill("select 8192 rows at 1M", k1M);
  for (auto [context, name] : {std::pair(k128K, "128K"), std::pair(k1M, "1M")}) {
    for (int64_t batch : {1, 8, 32}) {
      bench.Decode(std::string("select decode at ") + name, batch, context, kTotal);
    }
  }
  return 0;
}

}  // namespace
}  // namespace salamander::kernels::cuda

int main() { return salamander::kernels::cuda::Main(); }
