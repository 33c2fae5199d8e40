#include "router/admission.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <optional>
#include <string>
#include <vector>

namespace salamander::router {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

// A queue whose room is a number of tokens.
class AdmissionTest : public ::testing::Test {
 protected:
  Admission& Queue(int64_t queue_limit, int64_t max_running) {
    queue_.emplace(Admission::Options{.queue_limit = queue_limit, .max_running = max_running},
                   [this](const Demand& demand) -> absl::StatusOr<Placement> {
                     if (!place_error_.ok()) return place_error_;
                     if (demand.prompt_tokens > room_) return absl::ResourceExhaustedError("no room");
                     return Placement();
                   });
    return *queue_;
  }

  absl::StatusOr<Admission::Ticket> Enqueue(const std::string& name, int64_t tokens, int priority = 0) {
    return queue_->Enqueue(priority, {.prompt_tokens = tokens}, [this, name](absl::StatusOr<Placement> placement) {
      (placement.ok() ? admitted_ : failed_).push_back(name);
    });
  }

  std::optional<Admission> queue_;
  int64_t room_ = 100;
  absl::Status place_error_;
  std::vector<std::string> admitted_, failed_;
};

TEST_F(AdmissionTest, AdmitsAtOnceWhileThereIsRoom) {
  Queue(0, 2);  // an empty queue is no obstacle
  const auto a = Enqueue("a", 10);
  ASSERT_TRUE(a.ok());
  ASSERT_TRUE(Enqueue("b", 10).ok());
  EXPECT_THAT(admitted_, ElementsAre("a", "b"));
  EXPECT_EQ(queue_->running(), 2);
  const absl::Status full = Enqueue("c", 10).status();
  EXPECT_EQ(full, absl::ResourceExhaustedError("the queue is full: 0 requests wait, the limit is 0"));
  queue_->Leave(*a);
  EXPECT_TRUE(Enqueue("d", 10).ok());
  EXPECT_THAT(admitted_, ElementsAre("a", "b", "d"));
}

TEST_F(AdmissionTest, GoesByPriorityThenArrival) {
  Queue(10, 1);
  Admission::Ticket running = *Enqueue("running", 10);
  std::map<std::string, Admission::Ticket> tickets;
  tickets["low"] = *Enqueue("low", 1, -1);
  tickets["first"] = *Enqueue("first", 2);
  tickets["second"] = *Enqueue("second", 3);
  tickets["high"] = *Enqueue("high", 4, 5);
  EXPECT_EQ(queue_->queued(), 4);
  EXPECT_EQ(queue_->queued_tokens(), 10);
  for (int i = 0; i < 4; ++i) {
    queue_->Leave(running);
    running = tickets[admitted_.back()];
  }
  EXPECT_THAT(admitted_, ElementsAre("running", "high", "first", "second", "low"));
  EXPECT_EQ(queue_->queued_tokens(), 0);
}

TEST_F(AdmissionTest, TheFirstBlocksThoseBehindItUntilThereIsRoom) {
  Queue(10, 10);
  room_ = 50;
  ASSERT_TRUE(Enqueue("large", 80).ok());
  ASSERT_TRUE(Enqueue("small", 5).ok());
  EXPECT_THAT(admitted_, IsEmpty());
  queue_->Wake();
  EXPECT_THAT(admitted_, IsEmpty());
  room_ = 100;
  queue_->Wake();
  EXPECT_THAT(admitted_, ElementsAre("large", "small"));
}

TEST_F(AdmissionTest, ARequeuedRequestKeepsItsPlaceAndWaitsForNews) {
  Queue(10, 10);
  const auto a = Enqueue("a", 10);
  queue_->Requeue(*a);
  EXPECT_EQ(queue_->queued(), 1);
  EXPECT_EQ(queue_->queued_tokens(), 10);
  EXPECT_EQ(queue_->running(), 0);
  // An arrival is no news: nothing would have changed for "a", which is before it.
  const auto b = Enqueue("b", 10);
  EXPECT_THAT(admitted_, ElementsAre("a"));
  queue_->Wake();
  EXPECT_THAT(admitted_, ElementsAre("a", "a", "b"));
  queue_->Requeue(*a);
  queue_->Leave(*b);  // an end is news
  EXPECT_THAT(admitted_, ElementsAre("a", "a", "b", "a"));
}

TEST_F(AdmissionTest, BoundsTheQueueAndForgetsThoseWhoLeave) {
  Queue(2, 1);
  const auto running = Enqueue("running", 1);
  const auto waiting = Enqueue("waiting", 1);
  ASSERT_TRUE(Enqueue("waiting too", 1).ok());
  const absl::Status full = Enqueue("too many", 1, 100).status();
  EXPECT_EQ(full.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(full.message()), HasSubstr("the limit is 2"));
  EXPECT_EQ(queue_->queued_tokens(), 2);
  queue_->Leave(*waiting);
  EXPECT_TRUE(Enqueue("fits now", 1).ok());
  queue_->Leave(*running);
  EXPECT_THAT(admitted_, ElementsAre("running", "waiting too"));
}

TEST_F(AdmissionTest, OtherErrorsEndTheWait) {
  Queue(10, 10);
  room_ = 0;
  const auto a = Enqueue("a", 1);
  const auto b = Enqueue("b", 1);
  place_error_ = absl::UnavailableError("no worker is left");
  queue_->Wake();
  EXPECT_THAT(failed_, ElementsAre("a", "b"));
  queue_->Leave(*a);
  queue_->Leave(*b);
  EXPECT_EQ(queue_->running(), 0);
}

TEST(CheckDeadline, RefusesWhatIsKnownToBeTooLate) {
  EXPECT_TRUE(CheckDeadline(10, 500, 400, 100).ok());
  const absl::Status late = CheckDeadline(8, 500, 400, 100);
  EXPECT_EQ(late.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(late.message()), HasSubstr("takes 9 s, the deadline is in 8 s"));
  EXPECT_TRUE(CheckDeadline(8, 500, 400, 0).ok());   // unknown rate
  EXPECT_TRUE(CheckDeadline(0.1, 5000, 0, 1).ok());  // idle: always try
}

TEST(CheckWait, RefusesWhatWouldWaitTooLong) {
  EXPECT_TRUE(CheckWait(1000, 100, 10).ok());
  const absl::Status long_wait = CheckWait(1001, 100, 10);
  EXPECT_EQ(long_wait.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(long_wait.message(),
            "the wait is too long: 1001 tokens are ahead, at 100 tokens/s that takes 10.01 s, the limit is 10 s");
  EXPECT_TRUE(CheckWait(1001, 0, 10).ok());      // unknown rate
  EXPECT_TRUE(CheckWait(1 << 30, 100, 0).ok());  // no limit
}

TEST(RetryAfterSeconds, IsBounded) {
  EXPECT_EQ(RetryAfterSeconds(1000, 0), 1);
  EXPECT_EQ(RetryAfterSeconds(1000, 200), 5);
  EXPECT_EQ(RetryAfterSeconds(1, 1e6), 0.2);
  EXPECT_EQ(RetryAfterSeconds(1 << 30, 1), 30);
}

}  // namespace
}  // namespace salamander::router
