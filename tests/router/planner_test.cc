#include "router/planner.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <random>

#include "absl/strings/str_cat.h"

namespace salamander::router {
namespace {

using ::testing::ElementsAre;

std::vector<PlanCandidate> Workers(int count, int64_t max_span_tokens = 8192) {
  std::vector<PlanCandidate> workers;
  for (int i = 0; i < count; ++i) {
    workers.push_back(
        {.instance = static_cast<InstanceId>(i + 1), .name = absl::StrCat("p", i), .max_span_tokens = max_span_tokens});
  }
  return workers;
}

std::vector<int64_t> SpanLengths(const v1::Plan& plan) {
  std::vector<int64_t> lengths;
  for (const v1::SpanAssignment& span : plan.spans()) lengths.push_back(span.end() - span.begin());
  return lengths;
}

std::vector<std::string> Names(const v1::Plan& plan) {
  std::vector<std::string> names;
  for (const v1::PlanWorker& worker : plan.prefill_workers()) names.push_back(worker.name());
  return names;
}

TEST(PlanSpans, LongPromptsGetFullSpansInTurn) {
  const v1::Plan plan = PlanSpans(20000, {.span_tokens = 8192, .min_span_tokens = 1024}, Workers(2));
  EXPECT_THAT(SpanLengths(plan), ElementsAre(8192, 8192, 3616));
  EXPECT_EQ(plan.spans(0).worker(), 0);
  EXPECT_EQ(plan.spans(1).worker(), 1);
  EXPECT_EQ(plan.spans(2).worker(), 0);
  EXPECT_THAT(TokensPerWorker(plan), ElementsAre(11808, 8192));
}

TEST(PlanSpans, ShorterPromptsAreCutEquallySoThatAllHelp) {
  const PlanPolicy policy{.span_tokens = 8192, .min_span_tokens = 1024};
  EXPECT_THAT(SpanLengths(PlanSpans(4096, policy, Workers(4))), ElementsAre(1024, 1024, 1024, 1024));
  EXPECT_THAT(SpanLengths(PlanSpans(3000, policy, Workers(4))), ElementsAre(1536, 1464));
  EXPECT_THAT(SpanLengths(PlanSpans(2047, policy, Workers(4))), ElementsAre(2047));
  EXPECT_THAT(SpanLengths(PlanSpans(1, policy, Workers(4))), ElementsAre(1));
}

TEST(PlanSpans, LeastLoadedFirst) {
  std::vector<PlanCandidate> workers = Workers(3);
  workers[0].load_tokens = 500;
  workers[1].load_tokens = 20;
  workers[2].load_tokens = 90;
  const PlanPolicy policy{.span_tokens = 1024, .min_span_tokens = 1024};
  EXPECT_THAT(Names(PlanSpans(100, policy, workers)), ElementsAre("p1"));
  EXPECT_THAT(Names(PlanSpans(2048, policy, workers)), ElementsAre("p1", "p2"));
  EXPECT_THAT(Names(PlanSpans(9000, policy, workers)), ElementsAre("p1", "p2", "p0"));
}

TEST(PlanSpans, NoSpanIsLongerThanAWorkerCanRun) {
  std::vector<PlanCandidate> workers = Workers(2);
  workers[1].max_span_tokens = 600;  // not a multiple of 128
  EXPECT_THAT(SpanLengths(PlanSpans(1100, {.span_tokens = 8192, .min_span_tokens = 8192}, workers)),
              ElementsAre(512, 512, 76));
}

// What every leg relies on, for random prompts, policies and workers.
TEST(PlanSpans, Properties) {
  std::mt19937_64 random(1);
  for (int round = 0; round < 3000; ++round) {
    const int64_t prompt = std::uniform_int_distribution<int64_t>(1, round % 2 == 0 ? 3000 : 300000)(random);
    const int count = std::uniform_int_distribution<int>(1, 9)(random);
    PlanPolicy policy{.span_tokens = 128 * std::uniform_int_distribution<int64_t>(1, 64)(random)};
    policy.min_span_tokens = std::uniform_int_distribution<int64_t>(1, policy.span_tokens)(random);
    std::vector<PlanCandidate> workers = Workers(count);
    int64_t longest = policy.span_tokens;
    for (PlanCandidate& worker : workers) {
      worker.load_tokens = std::uniform_int_distribution<int64_t>(0, 5)(random);
      worker.max_span_tokens = std::uniform_int_distribution<int64_t>(128, 9000)(random);
      longest = std::min(longest, worker.max_span_tokens);
    }
    const v1::Plan plan = PlanSpans(prompt, policy, workers);
    SCOPED_TRACE(plan.ShortDebugString());

    ASSERT_EQ(plan.prompt_tokens(), prompt);
    ASSERT_GE(plan.spans_size(), 1);
    const int used = plan.prefill_workers_size();
    ASSERT_EQ(used, std::min(count, plan.spans_size()));
    int64_t end = 0;
    for (int i = 0; i < plan.spans_size(); ++i) {
      const v1::SpanAssignment& span = plan.spans(i);
      ASSERT_EQ(span.begin(), end);
      ASSERT_EQ(span.begin() % kSpanAlignTokens, 0);
      ASSERT_GT(span.end(), span.begin());
      ASSERT_LE(span.end() - span.begin(), longest);
      ASSERT_EQ(span.worker(), i % used);
      if (i + 1 < plan.spans_size()) {
        ASSERT_EQ(span.end() - span.begin(), plan.spans(0).end());
      }
      end = span.end();
    }
    ASSERT_EQ(end, prompt);
    // Cut for more helpers only as far as allowed (the last one is what rounding to 128 leaves).
    if (plan.spans_size() > 1) {
      ASSERT_GE(plan.spans(0).end(), std::min(policy.min_span_tokens, longest / 128 * 128));
    }
    // The loads of those used are the smallest, in order.
    std::vector<int64_t> all, chosen;
    for (const PlanCandidate& worker : workers) all.push_back(worker.load_tokens);
    for (const v1::PlanWorker& worker : plan.prefill_workers()) {
      chosen.push_back(workers[worker.instance_id() - 1].load_tokens);
    }
    std::sort(all.begin(), all.end());
    all.resize(used);
    ASSERT_EQ(chosen, all);
    const std::vector<int64_t> tokens = TokensPerWorker(plan);
    ASSERT_EQ(std::accumulate(tokens.begin(), tokens.end(), int64_t{0}), prompt);
  }
}

}  // namespace
}  // namespace salamander::router
