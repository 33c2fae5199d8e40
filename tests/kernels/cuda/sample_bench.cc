// What draws of tokens take from the released model's vocabulary, over the time to read the logits once.
#include <cmath>
#include <random>
#include <vector>

#include "absl/strings/str_format.h"
#include "kernels/cuda/launch.h"
#include "tests/kernels/cuda/bench.h"

namespace salamander::kernels::cuda {
namespace {

constexpr int64_t kVocab = 73448;

struct Options {
  const char* name;
  SampleRow row;
};
const Options kOptions[] = {
    {"greedy", {.temperature = 0}},
    {"temperature", {.temperature = 0.8f}},
    {"top-p", {.temperature = 0.8f, .top_p = 0.95f}},
    {"top-k, top-p", {.temperature = 0.8f, .top_k = 50, .top_p = 0.95f}},
    {"greedy, 20 log-probabilities", {.temperature = 0, .logprobs = 20}},
};

float* NormalLogits(int64_t count) {
  std::mt19937 random(1);
  std::normal_distribution<float> normal(0, 3);
  std::vector<float> logits(count);
  for (float& logit : logits) logit = normal(random);
  float* there = BenchArray<float>(count);
  Check(cudaMemcpy(there, logits.data(), count * sizeof(float), cudaMemcpyHostToDevice));
  return there;
}

}  // namespace
}  // namespace salamander::kernels::cuda

int main() {
  using namespace salamander::kernels;
  using namespace salamander::kernels::cuda;
  if (!PrintDevice()) return 0;
  constexpr int64_t kMaxRows = 32, kTop = 20;
  const float* logits = NormalLogits(kMaxRows * kVocab);
  auto* tokens = BenchArray<SampledToken>(kMaxRows);
  auto* top = BenchArray<TokenLogprob>(kMaxRows * kTop);
  auto* items = BenchArray<SampleItem>(kMaxRows);
  for (const Options& options : kOptions) {
    for (const int64_t rows : {1, 8, 32}) {
      std::vector<SampleItem> list(rows);
      for (int64_t i = 0; i < rows; ++i) {
        list[i] = {logits + i * kVocab, logits + i * kVocab, options.row};
        list[i].row.random = (uint64_t{1} << 53) / rows * i;
      }
      Check(cudaMemcpy(items, list.data(), rows * sizeof(SampleItem), cudaMemcpyHostToDevice));
      const double microseconds = Microseconds([&](int, cudaStream_t stream) {
        Check(SampleTokens(items, rows, kVocab, tokens, top, kTop, Arch::kSm90a, stream));
      });
      Report(absl::StrFormat("sample, %s, %d rows", options.name, rows), microseconds, 0,
             static_cast<double>(rows * kVocab * sizeof(float)));
    }
  }
}
