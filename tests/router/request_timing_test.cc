#include "router/request_timing.h"

#include <gtest/gtest.h>

#include <random>

namespace salamander::router {
namespace {

double Sum(const v1::Timing& t) {
  return t.router_queue() + t.prefill_queue() + t.prefill() + t.transfer_exposed() + t.decode_queue() + t.first_step();
}

TEST(RequestTiming, PartsAreWhatTheyAreCalled) {
  RequestTiming timing(100);
  timing.PrefillSent(101);
  timing.SpanStarted(103);
  timing.SpanStarted(104);  // another span; the first counts
  timing.Prefilled(107);
  EXPECT_FALSE(timing.Tokens(112, 1).has_value());
  EXPECT_EQ(*timing.Tokens(113, 1), 1);
  EXPECT_FALSE(timing.Tokens(115, 0).has_value());
  EXPECT_EQ(*timing.Tokens(116, 2), 3);
  timing.FirstTokenAtWorker(1.5, 0.5);
  const v1::Timing report = timing.Report(200);
  EXPECT_DOUBLE_EQ(report.ttft(), 12);
  EXPECT_DOUBLE_EQ(report.router_queue(), 1);
  EXPECT_DOUBLE_EQ(report.prefill_queue(), 2);
  EXPECT_DOUBLE_EQ(report.prefill(), 4);
  EXPECT_DOUBLE_EQ(report.transfer_exposed(), 3);
  EXPECT_DOUBLE_EQ(report.decode_queue(), 1.5);
  EXPECT_DOUBLE_EQ(report.first_step(), 0.5);
  EXPECT_DOUBLE_EQ(report.tokens_per_second(), 3 / 4.0);
}

TEST(RequestTiming, AWorkersLengthsNeverExceedWhatTheRouterSaw) {
  RequestTiming timing(0);
  timing.PrefillSent(1);
  timing.SpanStarted(1);
  timing.Prefilled(5);
  timing.Tokens(6, 1);
  timing.FirstTokenAtWorker(10, 0.75);
  const v1::Timing report = timing.Report(6);
  EXPECT_DOUBLE_EQ(report.first_step(), 0.75);
  EXPECT_DOUBLE_EQ(report.decode_queue(), 0.25);
  EXPECT_DOUBLE_EQ(report.transfer_exposed(), 0);
  EXPECT_EQ(report.tokens_per_second(), 0);
}

TEST(RequestTiming, WithoutATokenTheEndCounts) {
  RequestTiming timing(0);
  timing.PrefillSent(1);
  const v1::Timing report = timing.Report(3);
  EXPECT_DOUBLE_EQ(report.ttft(), 3);
  EXPECT_DOUBLE_EQ(report.router_queue(), 1);
}

// Exactly, not to a rounding error; whatever is missing, late or nonsense.
TEST(RequestTiming, PartsAddUpAndAreNeverNegative) {
  std::mt19937_64 random(2);
  std::uniform_real_distribution<double> step(0, 3);
  for (int round = 0; round < 5000; ++round) {
    double now = step(random);
    RequestTiming timing(now);
    const auto maybe = [&](auto mark) {
      now += step(random);
      if (random() % 5 != 0) mark(now);
    };
    maybe([&](double t) { timing.PrefillSent(t); });
    maybe([&](double t) { timing.SpanStarted(t); });
    maybe([&](double t) { timing.Prefilled(t); });
    maybe([&](double t) { timing.Tokens(t, 1); });
    const double decode_queue = step(random) - 0.5;
    timing.FirstTokenAtWorker(decode_queue, step(random) - 0.5);
    const v1::Timing report = timing.Report(now + 1);
    ASSERT_EQ(report.ttft(), Sum(report));
    for (double part : {report.router_queue(), report.prefill_queue(), report.prefill(), report.transfer_exposed(),
                        report.decode_queue(), report.first_step()}) {
      ASSERT_GE(part, 0);
    }
  }
}

}  // namespace
}  // namespace salamander::router
