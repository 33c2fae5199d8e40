#include "router/placement.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/router/fake_members.h"

namespace salamander::router {
namespace {

using ::testing::HasSubstr;

constexpr PlanPolicy kPolicy{.span_tokens = 1024, .min_span_tokens = 1024};

TEST(Placer, SaysAtOnceWhoIsMissing) {
  Members members;
  const Placer placer(&members.registry, kPolicy);
  const Demand demand{.prompt_tokens = 10, .total_tokens = 20};
  EXPECT_EQ(placer.CheckPossible(demand), absl::UnavailableError("no prefill worker is ready"));
  members.JoinPrefill("p0", 1);
  EXPECT_EQ(placer.CheckPossible(demand), absl::UnavailableError("no decode worker is ready"));
  EXPECT_EQ(placer.Place(demand).status().code(), absl::StatusCode::kUnavailable);
  const auto d0 = members.Join(Hello(v1::WORKER_ROLE_DECODE, "d0", 2), {});
  // One that has just joined, or stopped being ready, will be so in a moment: worth waiting in the queue, for a while.
  EXPECT_TRUE(placer.CheckPossible(demand).ok());
  EXPECT_EQ(placer.Place(demand).status().code(), absl::StatusCode::kResourceExhausted);
  members.clock.Advance(5);
  EXPECT_EQ(placer.CheckPossible(demand), absl::UnavailableError("no decode worker is ready"));
  EXPECT_EQ(placer.Place(demand).status(), absl::UnavailableError("no decode worker is ready"));
  members.registry.Beat(2, d0.get(), ReadyBeat());
  EXPECT_TRUE(placer.CheckPossible(demand).ok());
  EXPECT_TRUE(placer.Place(demand).ok());
}

TEST(Placer, NamesTheLargestWorkerForWhatNeverFits) {
  Members members;
  const Placer placer(&members.registry, kPolicy);
  members.JoinPrefill("p0", 1);
  v1::WorkerHello small = Hello(v1::WORKER_ROLE_DECODE, "d-small", 2);
  small.set_request_memory_bytes(10 << 20);
  members.Join(small);
  members.JoinDecode("d-large", 3);
  // 99 pages and the request's own MiB fit in 100, also when others occupy them now.
  EXPECT_TRUE(placer.CheckPossible({.prompt_tokens = 10, .total_tokens = 99 * 1024}).ok());
  const absl::Status status = placer.CheckPossible({.prompt_tokens = 10, .total_tokens = 99 * 1024 + 1});
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(
      status.message(),
      "prompt + max_tokens must fit the memory of a decode worker, got 101377 tokens, which take 105906176 bytes; "
      "the largest, d-large, has 104857600");
  EXPECT_THAT(std::string(placer.CheckPossible({.prompt_tokens = 200 * 1024, .total_tokens = 10}).message()),
              HasSubstr("prompt must fit the memory of a prefill worker"));
}

TEST(Placer, CountsWhatItPlacedBeforeTheNextBeat) {
  Members members;
  const Placer placer(&members.registry, kPolicy);
  members.JoinPrefill("p0", 1);
  members.JoinPrefill("p1", 2);
  members.JoinDecode("d0", 3);
  members.JoinDecode("d1", 4);
  const Demand demand{.prompt_tokens = 500, .total_tokens = 60 * 1024};
  auto first = placer.Place(demand);
  ASSERT_TRUE(first.ok());
  ASSERT_EQ(first->prefill.size(), 1u);
  EXPECT_EQ(first->prefill[0].title, "prefill worker p0");
  EXPECT_EQ(first->decode.title, "decode worker d0");
  EXPECT_EQ(first->plan.decode_worker().name(), "d0");
  // The second goes to the idle ones, a third has no room on either decode worker.
  auto second = placer.Place(demand);
  ASSERT_TRUE(second.ok());
  EXPECT_EQ(second->prefill[0].title, "prefill worker p1");
  EXPECT_EQ(second->decode.title, "decode worker d1");
  EXPECT_EQ(placer.Place(demand).status(),
            absl::ResourceExhaustedError("no decode worker has room for 61440 tokens now"));
  EXPECT_EQ(placer.Load().tokens, 1000);
  // What ends gives back.
  *first = {};
  EXPECT_EQ(placer.Place(demand)->decode.title, "decode worker d0");
}

TEST(Placer, SpreadsALongPromptOverThoseWithRoom) {
  Members members;
  const Placer placer(&members.registry, kPolicy);
  members.JoinPrefill("p0", 1);
  members.Join(Hello(v1::WORKER_ROLE_PREFILL, "p1", 2), ReadyBeat(1 << 20));  // full
  members.JoinPrefill("p2", 3);
  members.JoinDecode("d0", 4);
  const auto placement = placer.Place({.prompt_tokens = 5000, .total_tokens = 5100});
  ASSERT_TRUE(placement.ok());
  ASSERT_EQ(placement->prefill.size(), 2u);
  EXPECT_EQ(placement->prefill[1].title, "prefill worker p2");
  EXPECT_EQ(members.Find("p0").outstanding_tokens, 3 * 1024 - 120);  // spans 0, 2 and 4
  EXPECT_EQ(members.Find("p2").outstanding_tokens, 2 * 1024);
}

TEST(Placer, LoadIsOfReadyPrefillWorkers) {
  Members members;
  const Placer placer(&members.registry, kPolicy);
  v1::Heartbeat beat = ReadyBeat();
  beat.set_tokens_per_second(1500);
  beat.set_queued_tokens(300);
  members.Join(Hello(v1::WORKER_ROLE_PREFILL, "p0", 1), beat);
  members.Join(Hello(v1::WORKER_ROLE_PREFILL, "p1", 2), beat);
  beat.set_ready(false);
  members.Join(Hello(v1::WORKER_ROLE_PREFILL, "p2", 3), beat);
  EXPECT_EQ(placer.Load().tokens, 600);
  EXPECT_EQ(placer.Load().tokens_per_second, 3000);
}

}  // namespace
}  // namespace salamander::router
