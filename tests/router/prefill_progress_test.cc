#include "router/prefill_progress.h"

#include <gtest/gtest.h>

namespace salamander::router {
namespace {

// [0, 256) of worker 0, [256, 512) of 1, [512, 600) of 0.
v1::Plan ThreeSpans() {
  v1::Plan plan;
  plan.set_prompt_tokens(600);
  for (int i = 0; i < 3; ++i) {
    v1::SpanAssignment* span = plan.add_spans();
    span->set_begin(256 * i);
    span->set_end(std::min(256 * (i + 1), 600));
    span->set_worker(i % 2);
  }
  return plan;
}

TEST(PrefillProgress, KnowsWhoseSpanIsWhose) {
  const PrefillProgress progress(ThreeSpans());
  EXPECT_TRUE(progress.CheckOwner(0, 0).ok());
  EXPECT_TRUE(progress.CheckOwner(1, 1).ok());
  EXPECT_EQ(progress.CheckOwner(1, 0).code(), absl::StatusCode::kInternal);
  EXPECT_FALSE(progress.CheckOwner(3, 0).ok());
  EXPECT_FALSE(progress.CheckOwner(-1, 0).ok());
}

TEST(PrefillProgress, CountsEachTokenOnce) {
  PrefillProgress progress(ThreeSpans());
  EXPECT_FALSE(progress.Message(10, 1).has_value());
  progress.Advance(0, 100);
  progress.Advance(0, 50);    // late
  progress.Advance(1, 9999);  // more than it has
  auto message = progress.Message(10, 2);
  ASSERT_TRUE(message.has_value());
  EXPECT_EQ(message->prefilled_tokens(), 356);
  EXPECT_EQ(message->prompt_tokens(), 600);
  EXPECT_DOUBLE_EQ(message->tokens_per_second(), 178);
  EXPECT_DOUBLE_EQ(message->seconds_left(), 244 / 178.0);
  EXPECT_FALSE(progress.all_computed());
  progress.Advance(0, 9999);
  progress.Advance(2, 9999);
  EXPECT_TRUE(progress.all_computed());
  EXPECT_FALSE(progress.all_done());
  EXPECT_TRUE(progress.Finish(0));
  EXPECT_FALSE(progress.Finish(0));
  EXPECT_TRUE(progress.Finish(1));
  EXPECT_FALSE(progress.all_done());
  EXPECT_TRUE(progress.Finish(2));
  EXPECT_TRUE(progress.all_done());
}

TEST(PrefillProgress, TellsAtMostEveryIntervalAndTheEndOnce) {
  PrefillProgress progress(ThreeSpans());
  progress.Advance(0, 10);
  EXPECT_TRUE(progress.Message(10, 1).has_value());
  progress.Advance(0, 20);
  EXPECT_FALSE(progress.Message(10 + PrefillProgress::kInterval / 2, 1).has_value());
  EXPECT_TRUE(progress.Message(10 + PrefillProgress::kInterval + 0.01, 1).has_value());
  EXPECT_FALSE(progress.Message(20, 1).has_value());  // nothing new
  for (int span = 0; span < 3; ++span) progress.Finish(span);
  const auto end = progress.Message(20.01, 1);
  ASSERT_TRUE(end.has_value());
  EXPECT_EQ(end->prefilled_tokens(), 600);
  EXPECT_EQ(end->seconds_left(), 0);
  EXPECT_FALSE(progress.Message(30, 1).has_value());
}

}  // namespace
}  // namespace salamander::router
