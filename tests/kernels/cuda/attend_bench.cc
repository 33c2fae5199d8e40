// Times stage 2 and dense attention at the released model's shape. Needs a GPU with 12 GiB.
#include <algorithm>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "kernels/cuda/launch.h"
#include "tests/kernels/cuda/bench.h"

namespace salamander::kernels::cuda {
namespace {

constexpr int64_t kHeads = 32, kKvHeads = 2, kDim = 128;
constexpr int64_t kInit = 1, kLocal = 32, kTop = 96;
constexpr int64_t kSpan = 8192;
constexpr int64_t kWidth = kHeads * kDim;
constexpr int64_t kPoolPages = 4096;                // of which sequences take theirs; 4 GiB
constexpr double kPairFlops = 4.0 * kHeads * kDim;  // of one token and key
const KvLayout kKv = {kKvHeads, kDim, DType::kBFloat16};

std::vector<bf16> RandomBf16(int64_t count, float scale) {
  std::mt19937 random(1);
  std::normal_distribution<float> normal(0, scale);
  std::vector<bf16> values(count);
  for (bf16& value : values) value = __float2bfloat16(normal(random));
  return values;
}

// How a token's free blocks differ from those of the token before.
enum class Choices { kAlike, kRandom };

// [rows, kv_heads, kTop] for rows at positions [position, position + rows).
std::vector<int32_t> Choose(int64_t position, int64_t rows, Choices choices, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<int32_t> blocks;
  std::vector<int32_t> free[kKvHeads];
  for (int64_t r = 0; r < rows; ++r) {
    const auto own = static_cast<int32_t>((position + r) / kBlockTokens), window = static_cast<int32_t>(own - kLocal);
    for (auto& chosen : free) {
      // Alike: three in a hundred are new.
      std::erase_if(chosen,
                    [&](int32_t b) { return choices == Choices::kRandom || b >= window || random() % 32 == 0; });
      while (static_cast<int64_t>(chosen.size()) < kTop - kLocal - 1 - kInit) {
        const int32_t block = std::uniform_int_distribution<int32_t>(kInit, window - 1)(random);
        const auto at = std::lower_bound(chosen.begin(), chosen.end(), block);
        if (at == chosen.end() || *at != block) chosen.insert(at, block);
      }
      for (int32_t b = 0; b < kInit; ++b) blocks.push_back(b);
      blocks.insert(blocks.end(), chosen.begin(), chosen.end());
      for (int32_t b = window; b <= own; ++b) blocks.push_back(b);
    }
  }
  return blocks;
}

// Given back with the case.
template <typename T>
class Upload {
 public:
  explicit Upload(const std::vector<T>& values) {
    Check(cudaMalloc(reinterpret_cast<void**>(&data_), std::max<size_t>(1, values.size()) * sizeof(T)));
    Check(cudaMemcpy(data_, values.data(), values.size() * sizeof(T), cudaMemcpyHostToDevice));
  }
  Upload(Upload&& other) : data_(std::exchange(other.data_, nullptr)) {}
  ~Upload() { cudaFree(data_); }
  T* data() const { return data_; }

 private:
  T* data_ = nullptr;
};

class Bench {
 public:
  Bench() : q_(RandomBf16(kSpan * kWidth, 1)), out_(BenchArray<bf16>(kSpan * kWidth)) {
    cudaDeviceProp properties;
    Check(cudaGetDeviceProperties(&properties, 0));
    params_.kv = kKv;
    params_.heads = kHeads;
    params_.init_blocks = kInit;
    params_.local_blocks = kLocal;
    params_.top_blocks = kTop;
    params_.multiprocessors = properties.multiProcessorCount;
    hopper_ = properties.major == 9;
    pool_ = BenchArray<std::byte>(kPoolPages * kKv.page_bytes());
    const std::vector<bf16> page = RandomBf16(kKv.page_bytes() / 2, 1);
    for (int64_t i = 0; i < kPoolPages; ++i) {
      Check(cudaMemcpy(pool_ + i * kKv.page_bytes(), page.data(), kKv.page_bytes(), cudaMemcpyHostToDevice));
    }
  }

  // A span of a prompt. No choices: dense.
  void Prefill(const std::string& name, int64_t position, const Choices* choices) {
    const Table table = Sequences(1, kSpan, position, 1);
    double pairs = kSpan * (position + (kSpan + 1) / 2.0);
    std::vector<int32_t> chosen;
    if (choices != nullptr) {
      pairs = kSpan * (kTop - 0.5) * kBlockTokens;
      chosen = Choose(position, kSpan, *choices, 1);
    }
    const Upload<int32_t> blocks(chosen);
    for (Arch arch : {Arch::kSm80, Arch::kSm90a}) {
      if (arch == Arch::kSm90a && !hopper_) continue;
      params_.arch = arch;
      const double microseconds = Microseconds(
          [&](int, cudaStream_t stream) {
            Launch(table.sequences.data(), choices != nullptr ? blocks.data() : nullptr, nullptr, stream);
          },
          10);
      Report(name + (arch == Arch::kSm80 ? " sm_80" : " sm_90a"), microseconds, pairs * kPairFlops, 0);
    }
  }

  // A step of `batch` sequences, over other pages or blocks each time, so that no cache helps.
  void Decode(const std::string& name, int64_t batch, int64_t tokens, bool dense) {
    constexpr int kSets = 24;
    const Table table = Sequences(kSets * batch, 1, tokens - 1, batch);
    std::vector<int32_t> chosen;
    for (int64_t i = 0; i < kSets * batch && !dense; ++i) {
      const std::vector<int32_t> one = Choose(tokens - 1, 1, Choices::kRandom, static_cast<uint32_t>(i));
      chosen.insert(chosen.end(), one.begin(), one.end());
    }
    const Upload<int32_t> blocks(chosen);
    const Upload<std::byte> workspace(std::vector<std::byte>(AttendWorkspaceBytes(params_)));
    const double microseconds = Microseconds(
        [&](int i, cudaStream_t stream) {
          Launch(table.sequences.data() + i * batch, dense ? nullptr : blocks.data() + i * batch * kKvHeads * kTop,
                 workspace.data(), stream);
        },
        kSets);
    const int64_t read = dense ? tokens : kTop * kBlockTokens;
    Report(name + " batch " + std::to_string(batch), microseconds, 0,
           static_cast<double>(batch * read * kKv.token_bytes()));
  }

 private:
  struct Table {
    Upload<std::byte*> pages;
    Upload<SparseSequence> sequences;
  };

  // Sequences with pages from all over the pool, `together` in a launch.
  Table Sequences(int64_t count, int64_t rows, int64_t position, int64_t together) {
    const int64_t pages = (position + rows + kPageTokens - 1) / kPageTokens;
    std::vector<std::byte*> all;
    for (int64_t i = 0; i < count * pages; ++i) {
      all.push_back(pool_ + i * 1237 % kPoolPages * kKv.page_bytes());  // 1237 is odd: each page once in a round
    }
    Upload<std::byte*> table(all);
    std::vector<SparseSequence> sequences;
    for (int64_t i = 0; i < count; ++i) {
      sequences.push_back({i % together * rows, rows, position, table.data() + i * pages});
    }
    params_.count = together;
    params_.max_rows = rows;
    params_.max_tokens = position + rows;
    return {std::move(table), Upload<SparseSequence>(sequences)};
  }
  void Launch(const SparseSequence* sequences, const int32_t* blocks, void* workspace, cudaStream_t stream) {
    params_.sequences = sequences;
    const ConstRows q = {q_.data(), kWidth};
    const Rows out = {out_, kWidth};
    Check(blocks == nullptr ? AttendDense(params_, q, out, workspace, stream)
                            : AttendBlocks(params_, q, blocks, out, workspace, stream));
  }

  Upload<bf16> q_;
  bf16* out_;
  std::byte* pool_ = nullptr;
  SparseParams params_;
  bool hopper_ = false;
};

int Main() {
  if (!PrintDevice()) return 0;
  Bench bench;
  constexpr int64_t k128K = 131072, k1M = 1048576;
  for (auto [context, name] : {std::pair(k128K, "128K"), std::pair(k1M, "1M")}) {
    const std::string prefix = std::string("blocks 8192 rows at ") + name;
    for (Choices choices : {Choices::kAlike, Choices::kRandom}) {
      bench.Prefill(prefix + (choices == Choices::kAlike ? " alike" : " random"), context - kSpan, &choices);
    }
  }
  bench.Prefill("dense 8192 rows", 0, nullptr);
  for (int64_t batch : {1, 8, 32}) {
    bench.Decode("blocks decode at 128K", batch, k128K, false);
    bench.Decode("blocks decode at 1M", batch, k1M, false);
    bench.Decode("dense decode at 8000", batch, 8000, true);
  }
  return 0;
}

}  // namespace
}  // namespace salamander::kernels::cuda

int main() { return salamander::kernels::cuda::Main(); }
