#include "router/leg_status.h"

#include <gtest/gtest.h>

namespace salamander::router {
namespace {

TEST(LegError, NamesTheWorkerAndKeepsWhatItDecided) {
  const struct {
    absl::Status status;
    absl::Status error;
  } cases[] = {
      {absl::DataLossError("item 3/7"), absl::DataLossError("prefill worker p0: item 3/7")},
      {absl::InvalidArgumentError("no"), absl::InvalidArgumentError("prefill worker p0: no")},
      {absl::InternalError("bug"), absl::InternalError("prefill worker p0: bug")},
      {absl::DeadlineExceededError("late"), absl::DeadlineExceededError("prefill worker p0: late")},
      {absl::ResourceExhaustedError("full"), absl::ResourceExhaustedError("prefill worker p0: full")},
      {absl::UnavailableError("reset"), absl::UnavailableError("prefill worker p0 was lost: reset")},
      {absl::CancelledError("gone"), absl::UnavailableError("prefill worker p0 was lost: gone")},
      {absl::UnknownError("?"), absl::UnavailableError("prefill worker p0 was lost: ?")},
      {absl::NotFoundError("no such reservation"),
       absl::UnavailableError("prefill worker p0 was lost: no such reservation")},
      {absl::OkStatus(), absl::UnavailableError("prefill worker p0 ended its stream before it was done")},
  };
  for (const auto& c : cases) EXPECT_EQ(LegError("prefill worker p0", c.status), c.error);
}

TEST(IsRetryable, WhatMayPassByItself) {
  EXPECT_TRUE(IsRetryable(absl::ResourceExhaustedError("")));
  EXPECT_TRUE(IsRetryable(absl::UnavailableError("")));
  EXPECT_FALSE(IsRetryable(absl::InvalidArgumentError("")));
  EXPECT_FALSE(IsRetryable(absl::DeadlineExceededError("")));
  EXPECT_FALSE(IsRetryable(absl::InternalError("")));
}

}  // namespace
}  // namespace salamander::router
