// Draws on the GPU: the same tokens as the definition gives, and the CPU's log-probabilities.
#include "tests/kernels/cuda/ops_fixture.h"
#include "tests/kernels/sample_cases.h"

namespace salamander::kernels {
namespace {

class CudaSampleTest : public CudaOpsTest {
 protected:
  void Check(int64_t vocab, int kind) {
    const SampleCase made = MakeSampleCase(vocab, kind);
    const auto rows = static_cast<int64_t>(made.rows.size());
    std::vector<float> host_logits = made.logits;
    OpsArray<float> logits(*gpu_, host_logits);
    std::vector<SampledToken> got(rows), want(rows);
    constexpr int64_t kTop = 6;
    std::vector<TokenLogprob> got_top(rows * kTop), want_top(rows * kTop);
    const absl::Status status =
        gpu_->Sample({logits.data(), rows, vocab, vocab}, made.rows, made.edits, got.data(), got_top.data(), kTop);
    ASSERT_TRUE(status.ok()) << status;
    ASSERT_TRUE(gpu_->Synchronize().ok());
    ASSERT_TRUE(cpu_->Sample({host_logits.data(), rows, vocab, vocab}, made.rows, made.edits, want.data(),
                             want_top.data(), kTop)
                    .ok());
    for (int32_t row = 0; row < rows; ++row) {
      SCOPED_TRACE(testing::Message() << "vocabulary " << vocab << ", kind " << kind << ", row " << row);
      ASSERT_EQ(got[row].token, want[row].token);
      if (vocab < 5000) {
        ASSERT_EQ(got[row].token, DrawBySorting(made, row));
      }
      if (made.rows[row].logprobs < 0) continue;
      ASSERT_TRUE(Close(got[row].logprob, want[row].logprob)) << got[row].logprob << " " << want[row].logprob;
      for (int64_t i = 0; i < std::min({vocab, kTop, int64_t{made.rows[row].logprobs}}); ++i) {
        ASSERT_EQ(got_top[row * kTop + i].token, want_top[row * kTop + i].token);
        ASSERT_TRUE(Close(got_top[row * kTop + i].logprob, want_top[row * kTop + i].logprob));
      }
    }
    EXPECT_EQ(std::memcmp(logits.Read().data(), made.logits.data(), logits.bytes()), 0);
  }

  // Log-probabilities, also of tokens that have none.
  static bool Close(float a, float b) { return a == b || std::abs(a - b) < 1e-4; }
};

TEST_F(CudaSampleTest, DrawsAsDefined) {
  for (const int64_t vocab : {1, 31, 1023, 3072, 73448}) {
    for (const int kind : {0, 1, 2, 3}) Check(vocab, kind);
  }
}

TEST_F(CudaSampleTest, SmallestOfEveryKernel) { Check(1100, 1); }

}  // namespace
}  // namespace salamander::kernels
