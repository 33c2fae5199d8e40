// Draws of tokens against the definition, by sorting; and the fixed-point weights against float64.
#include "tests/kernels/reference.h"
#include "tests/kernels/sample_cases.h"

namespace salamander::kernels {
namespace {

TEST(Sampling, WeightsArePowersOfTwo) {
  std::mt19937 random(1);
  for (int i = 0; i < 100000; ++i) {
    const uint32_t distance = i < 1000 ? i << 20 : random() % kDistanceLimit;
    const double want = std::exp2(kWeightBits - std::ldexp(distance, -kFractionBits));
    ASSERT_NEAR(static_cast<double>(WeightOf(distance)), want, 1 + want * 2e-9) << distance;
  }
  EXPECT_EQ(WeightOf(0), uint64_t{1} << kWeightBits);
  EXPECT_EQ(WeightOf(kDistanceLimit), 0u);
}

TEST(Sampling, DistancesAreOfTheTemperature) {
  EXPECT_NEAR(DistanceOf(1.5f, 3.0f, DistanceScale(0.5f)), 3 * 1.4426950408889634 * (1 << kFractionBits), 4);
  EXPECT_EQ(DistanceOf(2.0f, 2.0f, DistanceScale(std::numeric_limits<float>::denorm_min())), 0u);
  EXPECT_EQ(DistanceOf(kLowestLogit, 2.0f, DistanceScale(std::numeric_limits<float>::max())), kDistanceLimit);
  EXPECT_EQ(DistanceOf(-3e38f, 3e38f, DistanceScale(1e30f)), kDistanceLimit);
}

class SampleTest : public BackendTest {};

TEST_P(SampleTest, DrawsAsDefined) {
  for (const int64_t vocab : {int64_t{1}, int64_t{31}, int64_t{1000}, int64_t{3072}}) {
    for (const int kind : {0, 1, 2, 3}) {
      const SampleCase made = MakeSampleCase(vocab, kind);
      const auto rows = static_cast<int64_t>(made.rows.size());
      Array logits(*ops_, rows, vocab, made.logits);
      std::vector<SampledToken> tokens(rows);
      constexpr int64_t kTop = 5;
      std::vector<TokenLogprob> top(rows * kTop, {-7, 0});
      ASSERT_TRUE(ops_->Sample(logits.matrix(), made.rows, made.edits, tokens.data(), top.data(), kTop).ok());
      for (int32_t row = 0; row < rows; ++row) {
        SCOPED_TRACE(testing::Message() << "vocabulary " << vocab << ", kind " << kind << ", row " << row);
        ASSERT_EQ(tokens[row].token, DrawBySorting(made, row));
        const int64_t listed = std::min({std::max<int64_t>(made.rows[row].logprobs, 0), kTop, vocab});
        for (int64_t i = 0; i < kTop; ++i) ASSERT_EQ(top[row * kTop + i].token == -7, i >= listed);
      }
      EXPECT_TRUE(logits.PaddingUntouched());
      EXPECT_EQ(std::memcmp(logits.values().data(), made.logits.data(), made.logits.size() * sizeof(float)), 0)
          << "edits are not the model's";
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, SampleTest, ::testing::ValuesIn(AllBackends()), BackendName);

}  // namespace
}  // namespace salamander::kernels
