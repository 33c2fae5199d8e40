#include "common/engine/sampler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>
#include <string>
#include <utility>

#include "common/engine/philox.h"
#include "tests/common/engine/draw_on_cpu.h"

namespace salamander::engine {
namespace {

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
constexpr float kInf = std::numeric_limits<float>::infinity();

SamplingParams Greedy() {
  SamplingParams params;
  params.temperature = 0;
  return params;
}

CpuDraw Ask(std::vector<float> logits, const SamplingParams& params, const TokenHistory& history, int64_t position,
            int logprobs) {
  DrawRequests requests;
  requests.Add(params, history, position, logprobs);
  return DrawOnCpu(std::move(logits), requests);
}

int32_t SampleToken(std::vector<float> logits, const SamplingParams& params, const TokenHistory& history,
                    int64_t position) {
  return Ask(std::move(logits), params, history, position, -1).draw.token;
}

// How often each token comes at positions 0, 1, ….
std::map<int32_t, int> Histogram(const std::vector<float>& logits, const SamplingParams& params, int draws) {
  std::map<int32_t, int> counts;
  for (int position = 0; position < draws; ++position) ++counts[SampleToken(logits, params, {}, position)];
  return counts;
}

// Tokens that ever come in 2000 draws.
std::vector<int32_t> Support(const std::vector<float>& logits, const SamplingParams& params) {
  std::vector<int32_t> tokens;
  for (const auto& [token, count] : Histogram(logits, params, 2000)) tokens.push_back(token);
  return tokens;
}

std::vector<float> LogitsOf(const std::vector<double>& probabilities) {
  std::vector<float> logits;
  for (const double p : probabilities) logits.push_back(static_cast<float>(std::log(p)));
  return logits;
}

// Known answers published with the authors' Random123 library.
TEST(Philox, KnownAnswers) {
  using Block = std::array<uint32_t, 4>;
  EXPECT_EQ(Philox4x32({0, 0, 0, 0}, {0, 0}), (Block{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(Philox4x32({0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}, {0xffffffff, 0xffffffff}),
            (Block{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(Philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (Block{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(SampleToken, GreedyTakesTheLowestIdOfTheBest) {
  EXPECT_EQ(SampleToken({0.f, 3.f, 3.f, -1.f}, Greedy(), {}, 0), 1);
}

TEST(SampleToken, FollowsTheDistribution) {
  const std::vector<double> p = {0.02, 0.3, 0.08, 0.25, 0.05, 0.2, 0.1};
  for (const float temperature : {1.0f, 2.0f, 0.5f}) {
    SamplingParams params;
    params.temperature = temperature;
    params.seed = 7;
    constexpr int kDraws = 50000;
    const std::map<int32_t, int> counts = Histogram(LogitsOf(p), params, kDraws);
    double total = 0, chi_square = 0;
    for (const double x : p) total += std::pow(x, 1 / temperature);
    for (size_t i = 0; i < p.size(); ++i) {
      const double expected = kDraws * std::pow(p[i], 1 / temperature) / total;
      const double seen = counts.contains(static_cast<int32_t>(i)) ? counts.at(static_cast<int32_t>(i)) : 0;
      chi_square += (seen - expected) * (seen - expected) / expected;
    }
    // 6 degrees of freedom: beyond 22.5 with probability 0.001. The draws are fixed, so this does not flicker.
    EXPECT_LT(chi_square, 22.5) << "temperature " << temperature;
  }
}

TEST(SampleToken, DependsOnSeedAndPositionAlone) {
  const std::vector<float> logits(50, 0.0f);
  SamplingParams params, other;
  params.seed = 1;
  other.seed = 2;
  int same_seed_differs = 0, other_seed_differs = 0, next_position_differs = 0;
  for (int position = 0; position < 200; ++position) {
    const int32_t token = SampleToken(logits, params, {}, position);
    same_seed_differs += token != SampleToken(logits, params, {}, position);
    other_seed_differs += token != SampleToken(logits, other, {}, position);
    next_position_differs += token != SampleToken(logits, params, {}, position + 1);
  }
  EXPECT_EQ(same_seed_differs, 0);
  EXPECT_GT(other_seed_differs, 150);
  EXPECT_GT(next_position_differs, 150);
}

TEST(SampleToken, PositionsBeyond32Bits) {
  const std::vector<float> logits(1000, 0.0f);
  EXPECT_NE(SampleToken(logits, {}, {}, 5), SampleToken(logits, {}, {}, 5 + (int64_t{1} << 32)));
}

TEST(SampleToken, TopKKeepsTheLikeliestAndLowerIdsOnTies) {
  SamplingParams params;
  params.top_k = 3;
  EXPECT_THAT(Support(LogitsOf({0.1, 0.3, 0.1, 0.3, 0.2}), params), testing::ElementsAre(1, 3, 4));
  EXPECT_THAT(Support(std::vector<float>(10, 1.0f), params), testing::ElementsAre(0, 1, 2));
  params.top_k = 100;
  EXPECT_EQ(Support(LogitsOf({0.3, 0.3, 0.4}), params).size(), 3u);
}

TEST(SampleToken, TopPKeepsTheFewestThatReachIt) {
  SamplingParams params;
  const std::vector<float> logits = LogitsOf({0.05, 0.4, 0.15, 0.3, 0.1});
  params.top_p = 0.35f;
  EXPECT_THAT(Support(logits, params), testing::ElementsAre(1));
  params.top_p = 0.69f;
  EXPECT_THAT(Support(logits, params), testing::ElementsAre(1, 3));
  params.top_p = 0.72f;
  EXPECT_THAT(Support(logits, params), testing::ElementsAre(1, 2, 3));
  params.top_p = 1e-30f;
  EXPECT_THAT(Support(logits, params), testing::ElementsAre(1));
}

TEST(SampleToken, TopPOverAWideFlatDistribution) {
  // All alike: the lower ids.
  SamplingParams params;
  params.top_p = 0.25f;
  const std::vector<float> logits(1000, 0.5f);
  const std::map<int32_t, int> counts = Histogram(logits, params, 20000);
  EXPECT_EQ(counts.size(), 250u);
  EXPECT_EQ(counts.rbegin()->first, 249);
}

TEST(SampleToken, TopPCountsWhatTopKLeft) {
  SamplingParams params;
  params.top_k = 2;  // leaves 0.4 and 0.3: 0.571 and 0.429
  params.top_p = 0.5f;
  EXPECT_THAT(Support(LogitsOf({0.05, 0.4, 0.15, 0.3, 0.1}), params), testing::ElementsAre(1));
}

TEST(SampleToken, MinPIsRelativeToTheLikeliest) {
  SamplingParams params;
  params.min_p = 0.3f;
  EXPECT_THAT(Support(LogitsOf({0.05, 0.4, 0.15, 0.3, 0.1}), params), testing::ElementsAre(1, 2, 3));
  params.min_p = 1;
  EXPECT_THAT(Support(LogitsOf({0.05, 0.4, 0.15, 0.3, 0.1}), params), testing::ElementsAre(1));
}

TEST(SampleToken, RepetitionPenaltyTouchesPromptAndOutputOnce) {
  SamplingParams params = Greedy();
  params.repetition_penalty = 2;
  TokenHistory history;
  history.prompt_counts = {{0, 5}, {1, 1}};
  history.output_counts = {{1, 3}, {2, 1}};
  // 4 → 2; 4.2 → 2.1; -1 → -2.
  EXPECT_EQ(SampleToken({4.0f, 4.2f, 2.05f, 1.0f}, params, history, 0), 1);
  EXPECT_EQ(SampleToken({4.0f, 4.2f, 2.05f, 2.2f}, params, history, 0), 3);
  EXPECT_EQ(SampleToken({-1.0f, -1.0f, -1.0f, -1.5f}, params, history, 0), 3);
}

TEST(SampleToken, PresenceAndFrequencyPenaltiesCountOutputOnly) {
  SamplingParams params = Greedy();
  TokenHistory history;
  history.prompt_counts = {{0, 50}};
  history.output_counts = {{1, 3}, {2, 1}};
  params.presence_penalty = 1;
  EXPECT_EQ(SampleToken({0.0f, 0.9f, 0.95f}, params, history, 0), 0);
  EXPECT_EQ(SampleToken({0.0f, 1.2f, 1.1f}, params, history, 0), 1);
  params.presence_penalty = 0;
  params.frequency_penalty = 0.5;
  EXPECT_EQ(SampleToken({0.0f, 1.4f, 0.4f}, params, history, 0), 0);
  EXPECT_EQ(SampleToken({0.0f, 1.4f, 0.6f}, params, history, 0), 2);
}

TEST(SampleToken, BiasIsAdded) {
  SamplingParams params = Greedy();
  params.logit_bias = {{2, 5.0f}, {0, -100.0f}};
  EXPECT_EQ(SampleToken({9.0f, 4.0f, 0.0f}, params, {}, 0), 2);
}

TEST(SampleToken, SurvivesLogitsThatAreNoNumbers) {
  SamplingParams sampled;
  sampled.top_p = 0.9f;
  sampled.top_k = 2;
  for (const SamplingParams& params : {Greedy(), SamplingParams(), sampled}) {
    EXPECT_EQ(SampleToken({kNaN, kNaN, kNaN}, params, {}, 3), 0);
    EXPECT_EQ(SampleToken({kNaN, -kInf, 1.0f}, params, {}, 3), 2);
    EXPECT_EQ(SampleToken({-kInf, -kInf}, params, {}, 3), 0);
    EXPECT_EQ(SampleToken({1.0f, kInf, kNaN}, params, {}, 3), 1);
  }
  SamplingParams cold;
  cold.temperature = std::numeric_limits<float>::denorm_min();
  EXPECT_EQ(SampleToken({1.0f, 1.0000001f, -3e38f, 0.0f}, cold, {}, 3), 1);
}

TEST(Logprobs, OfTheModelsOwnDistribution) {
  SamplingParams biased = Greedy();
  biased.logit_bias = {{2, 50.0f}};
  const CpuDraw told = Ask(LogitsOf({0.1, 0.4, 0.1, 0.4}), biased, {}, 0, 3);
  EXPECT_EQ(told.draw.token, 2);
  EXPECT_NEAR(told.draw.logprob, std::log(0.1), 1e-5);
  ASSERT_EQ(told.top.size(), 3u);
  EXPECT_EQ(told.top[0].token, 1);
  EXPECT_EQ(told.top[1].token, 3);
  EXPECT_EQ(told.top[2].token, 0);
  EXPECT_NEAR(told.top[0].logprob, std::log(0.4), 1e-5);
  EXPECT_TRUE(Ask({1.0f, 2.0f}, {}, {}, 0, 0).top.empty());
}

TEST(Logprobs, SurviveLogitsThatAreNoNumbers) {
  SamplingParams biased = Greedy();
  biased.logit_bias = {{1, -100.0f}, {2, -100.0f}, {0, 1.0f}};
  const CpuDraw told = Ask({-kInf, 2.0f, 2.0f}, biased, {}, 0, 3);
  EXPECT_EQ(told.draw.token, 1);
  EXPECT_NEAR(told.top[0].logprob, std::log(0.5), 1e-5);
  EXPECT_EQ(told.top[2].token, 0);
  EXPECT_EQ(told.top[2].logprob, -kInf);
}

struct BadParams {
  void (*change)(SamplingParams&);
  std::string message;
};

TEST(CheckSamplingParams, NamesFieldValueAndLimit) {
  EXPECT_TRUE(CheckSamplingParams({}, 10).ok());
  const std::vector<BadParams> cases = {
      {[](SamplingParams& p) { p.temperature = -1; }, "temperature must be ≥ 0, got -1"},
      {[](SamplingParams& p) { p.temperature = kNaN; }, "temperature must be ≥ 0, got nan"},
      {[](SamplingParams& p) { p.temperature = kInf; }, "temperature must be finite, got inf"},
      {[](SamplingParams& p) { p.top_p = 0; }, "top_p must be in (0, 1], got 0"},
      {[](SamplingParams& p) { p.top_p = 1.5; }, "top_p must be in (0, 1], got 1.5"},
      {[](SamplingParams& p) { p.top_p = kNaN; }, "top_p must be in (0, 1], got nan"},
      {[](SamplingParams& p) { p.top_k = -2; }, "top_k must be ≥ 0, got -2"},
      {[](SamplingParams& p) { p.min_p = -0.5; }, "min_p must be in [0, 1], got -0.5"},
      {[](SamplingParams& p) { p.min_p = 2; }, "min_p must be in [0, 1], got 2"},
      {[](SamplingParams& p) { p.repetition_penalty = 0; }, "repetition_penalty must be > 0, got 0"},
      {[](SamplingParams& p) { p.repetition_penalty = kInf; }, "repetition_penalty must be finite, got inf"},
      {[](SamplingParams& p) { p.presence_penalty = 3; }, "presence_penalty must be in [-2, 2], got 3"},
      {[](SamplingParams& p) { p.frequency_penalty = kNaN; }, "frequency_penalty must be in [-2, 2], got nan"},
      {[](SamplingParams& p) {
         p.logit_bias = {{10, 1.0f}};
       },
       "token id of logit_bias must be in [0, 10), got 10"},
      {[](SamplingParams& p) {
         p.logit_bias = {{3, 101.0f}};
       },
       "logit_bias of token 3 must be in [-100, 100], got 101"},
  };
  for (const BadParams& bad : cases) {
    SamplingParams params;
    bad.change(params);
    const absl::Status status = CheckSamplingParams(params, 10);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << bad.message;
    EXPECT_EQ(status.message(), absl::string_view(bad.message));
  }
}

}  // namespace
}  // namespace salamander::engine
