#include "router/backlog.h"

#include <gtest/gtest.h>

#include <memory>

#include "common/base/virtual_deadline.h"
#include "tests/router/fake_clock.h"

namespace salamander::router {
namespace {

TEST(Backlog, CountsWhatGoesFirst) {
  FakeClock clock;
  Backlog backlog(&clock);
  EXPECT_EQ(backlog.TokensAhead(0, 100), 0);
  const auto long_prompt = backlog.Add(0, 100000);
  const auto short_prompt = backlog.Add(0, 500);
  EXPECT_EQ(backlog.TokensAhead(0, 100), 0) << "the shortest goes first";
  EXPECT_EQ(backlog.TokensAhead(0, 500), 500) << "of equals the one that came first";
  EXPECT_EQ(backlog.TokensAhead(0, 1000), 500);
  EXPECT_EQ(backlog.TokensAhead(0, 200000), 100500);
  EXPECT_EQ(backlog.TokensAhead(1, 200000), 0) << "priority before length";
  EXPECT_EQ(backlog.TokensAhead(-1, 1), 100500);
  // Who has waited is not overtaken any more.
  clock.Advance(100000 / kReferenceTokensPerSecond + 1);
  EXPECT_EQ(backlog.TokensAhead(0, 100), 100500);
}

TEST(Backlog, ShrinksAsWorkIsDone) {
  FakeClock clock;
  Backlog backlog(&clock);
  std::unique_ptr<Backlog::Part> part = backlog.Add(0, 1000);
  EXPECT_EQ(backlog.TokensAhead(0, 2000), 1000);
  part->FinishTokens(600);
  EXPECT_EQ(backlog.TokensAhead(0, 2000), 400);
  part.reset();
  EXPECT_EQ(backlog.TokensAhead(0, 2000), 0);
}

}  // namespace
}  // namespace salamander::router
