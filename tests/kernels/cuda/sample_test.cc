// Draws on the GPU: the same tokens as the definition gives, and the CPU's log-probabilities.
#include "kernels/ops.h"
#include "tests/kernels/cuda/device.h"
#include "tests/kernels/sample_cases.h"

namespace salamander::kernels::cuda {
namespace {

constexpr int64_t kTop = 6;

struct Results {
  std::vector<SampledToken> tokens;
  std::vector<TokenLogprob> top;
};

Results OnCpu(const SampleCase& made) {
  const auto rows = static_cast<int64_t>(made.rows.size());
  std::vector<float> logits = made.logits;
  Results results = {std::vector<SampledToken>(rows), std::vector<TokenLogprob>(rows * kTop)};
  EXPECT_TRUE(CreateCpuOps(2)
                  .value()
                  ->Sample({logits.data(), rows, made.vocab, made.vocab}, made.rows, made.edits, results.tokens.data(),
                           results.top.data(), kTop)
                  .ok());
  return results;
}

class CudaSampleTest : public GpuTest {
 protected:
  static Results OnGpu(const SampleCase& made, Arch arch) {
    const auto rows = static_cast<int64_t>(made.rows.size());
    const DeviceArray<float> logits(made.logits), edited(made.logits);
    const DeviceArray<LogitEdit> edits(made.edits);
    EXPECT_EQ(EditLogits(edits.data(), edits.size(), edited.data(), made.vocab, nullptr), cudaSuccess);
    std::vector<SampleItem> items;
    for (int64_t row = 0; row < rows; ++row) {
      items.push_back({logits.data() + row * made.vocab, edited.data() + row * made.vocab, made.rows[row]});
    }
    const DeviceArray<SampleItem> list(items);
    const DeviceArray<SampledToken> tokens(rows);
    const DeviceArray<TokenLogprob> top(rows * kTop);
    EXPECT_EQ(SampleTokens(list.data(), rows, made.vocab, tokens.data(), top.data(), kTop, arch, nullptr), cudaSuccess);
    Finish();
    return {tokens.Read(), top.Read()};
  }

  void Check(int64_t vocab, int kind) {
    const SampleCase made = MakeSampleCase(vocab, kind);
    const Results want = OnCpu(made);
    for (const Arch arch : archs_) {
      const Results got = OnGpu(made, arch);
      for (int32_t row = 0; row < static_cast<int32_t>(made.rows.size()); ++row) {
        SCOPED_TRACE(testing::Message() << "vocabulary " << vocab << ", kind " << kind << ", row " << row << ", arch "
                                        << static_cast<int>(arch));
        ASSERT_EQ(got.tokens[row].token, want.tokens[row].token);
        if (vocab < 5000) {
          ASSERT_EQ(got.tokens[row].token, DrawBySorting(made, row));
        }
        if (made.rows[row].logprobs < 0) continue;
        ASSERT_TRUE(Close(got.tokens[row].logprob, want.tokens[row].logprob));
        for (int64_t i = row * kTop; i < row * kTop + std::min({vocab, kTop, int64_t{made.rows[row].logprobs}}); ++i) {
          ASSERT_EQ(got.top[i].token, want.top[i].token);
          ASSERT_TRUE(Close(got.top[i].logprob, want.top[i].logprob));
        }
      }
    }
  }

  // Log-probabilities, also of tokens that have none.
  static testing::AssertionResult Close(float a, float b) {
    if (a == b || std::abs(a - b) < 1e-4) return testing::AssertionSuccess();
    return testing::AssertionFailure() << a << " and " << b;
  }
};

TEST_F(CudaSampleTest, DrawsAsDefined) {
  for (const int64_t vocab : {1, 31, 1023, 3072, 73448}) {
    for (const int kind : {0, 1, 2, 3}) Check(vocab, kind);
  }
}

// For compute-sanitizer (tests/gpu/run).
TEST_F(CudaSampleTest, SmallestOfEveryKernel) { Check(1100, 1); }

}  // namespace
}  // namespace salamander::kernels::cuda
