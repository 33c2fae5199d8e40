#include "router/registry.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <utility>

#include "router/hello_checks.h"
#include "tests/router/fake_members.h"

namespace salamander::router {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::UnorderedElementsAre;

TEST(CheckHello, EachFieldByName) {
  const std::pair<std::function<void(v1::WorkerHello*)>, std::string> cases[] = {
      {[](v1::WorkerHello* h) { h->set_role(v1::WORKER_ROLE_UNSPECIFIED); }, "hello.role"},
      {[](v1::WorkerHello* h) { h->clear_name(); }, "hello.name"},
      {[](v1::WorkerHello* h) { h->clear_instance_id(); }, "hello.instance_id"},
      {[](v1::WorkerHello* h) { h->clear_grpc_address(); }, "hello.grpc_address"},
      {[](v1::WorkerHello* h) { h->clear_model_fingerprint(); }, "hello.model_fingerprint"},
      {[](v1::WorkerHello* h) { h->set_page_group_bytes(-1); }, "hello.request_memory_bytes"},
      {[](v1::WorkerHello* h) { h->set_max_span_tokens(127); }, "hello.max_span_tokens must be at least 128, got 127"},
  };
  EXPECT_TRUE(CheckHello(Hello(v1::WORKER_ROLE_PREFILL, "p", 1)).ok());
  for (const auto& [change, message] : cases) {
    v1::WorkerHello hello = Hello(v1::WORKER_ROLE_PREFILL, "p", 1);
    change(&hello);
    const absl::Status status = CheckHello(hello);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()), HasSubstr(message));
  }
}

TEST(RequestBytes, PagesAreWhole) {
  const v1::WorkerHello hello = Hello(v1::WORKER_ROLE_DECODE, "d", 1);
  EXPECT_EQ(RequestBytes(hello, 1), 2 << 20);
  EXPECT_EQ(RequestBytes(hello, 1024), 2 << 20);
  EXPECT_EQ(RequestBytes(hello, 1025), 3 << 20);
}

TEST(Registry, RefusesStrangersByName) {
  Members members;
  v1::WorkerHello hello = Hello(v1::WORKER_ROLE_PREFILL, "p0", 1);
  hello.set_model_fingerprint("other");
  absl::Status status = members.registry.Add(hello, std::make_shared<FakeLink>());
  EXPECT_EQ(status, absl::FailedPreconditionError("worker p0 has model fingerprint other, but the router has m"));
  ASSERT_NE(members.JoinPrefill("p0", 1), nullptr);

  hello = Hello(v1::WORKER_ROLE_DECODE, "p0", 2);
  status = members.registry.Add(hello, std::make_shared<FakeLink>());
  EXPECT_EQ(status.code(), absl::StatusCode::kAlreadyExists);
  EXPECT_THAT(std::string(status.message()), HasSubstr("worker name p0 is taken"));

  hello = Hello(v1::WORKER_ROLE_DECODE, "d0", 2);
  hello.set_stream_version(2);
  status = members.registry.Add(hello, std::make_shared<FakeLink>());
  EXPECT_EQ(status, absl::FailedPreconditionError("worker d0 has stream version 2, but worker p0 has 1"));

  hello = Hello(v1::WORKER_ROLE_DECODE, "d0", 2);
  hello.set_kv_element_type(v1::ELEMENT_TYPE_FLOAT32);
  status = members.registry.Add(hello, std::make_shared<FakeLink>());
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("ELEMENT_TYPE_FLOAT32, but worker p0 has ELEMENT_TYPE_BFLOAT16"));
  EXPECT_EQ(members.registry.Workers().size(), 1u);
}

TEST(Registry, WithoutOwnFingerprintTheWorkersDecide) {
  Members members("");
  EXPECT_EQ(members.registry.model_fingerprint(), "");
  const auto link = members.JoinPrefill("p0", 1);
  ASSERT_NE(link, nullptr);
  EXPECT_EQ(members.registry.model_fingerprint(), "m");
  v1::WorkerHello other = Hello(v1::WORKER_ROLE_DECODE, "d0", 2);
  other.set_model_fingerprint("n");
  EXPECT_EQ(members.Join(other), nullptr);
  // Once all have left, another model may come.
  members.registry.Remove(1, link.get(), "left");
  EXPECT_NE(members.Join(other), nullptr);
}

TEST(Registry, PrefillWorkersHearOfAllOthersDecodeWorkersOfNone) {
  Members members;
  const auto p0 = members.JoinPrefill("p0", 1);
  EXPECT_EQ(p0->welcome->heartbeat_seconds(), 1);
  const auto d0 = members.JoinDecode("d0", 2);
  const auto p1 = members.JoinPrefill("p1", 3);
  EXPECT_THAT(p0->PeerNames(), UnorderedElementsAre("d0", "p1"));
  EXPECT_THAT(p1->PeerNames(), UnorderedElementsAre("p0", "d0"));
  EXPECT_TRUE(d0->peers.empty());
  EXPECT_EQ(p1->peers.back().peers(0).transport_address(), "address of p0");
  members.registry.Remove(2, d0.get(), "left");
  EXPECT_THAT(p0->PeerNames(), ElementsAre("p1"));
}

TEST(Registry, TwoMissedBeatsAndAWorkerIsGone) {
  Members members;
  std::vector<std::pair<InstanceId, std::string>> gone;
  members.registry.set_on_gone([&](InstanceId id, const std::string& reason) { gone.emplace_back(id, reason); });
  const auto p0 = members.JoinPrefill("p0", 1);
  const auto p1 = members.JoinPrefill("p1", 2);
  members.clock.Advance(1.5);
  members.registry.Beat(2, p1.get(), ReadyBeat());
  members.clock.Advance(0.9);
  members.registry.Expire();
  EXPECT_THAT(gone, IsEmpty());
  members.clock.Advance(0.2);
  members.registry.Expire();
  ASSERT_EQ(gone.size(), 1u);
  EXPECT_EQ(gone[0].first, 1u);
  EXPECT_THAT(gone[0].second, HasSubstr("no heartbeat for 2.6 s, the limit is 2.5 s"));
  EXPECT_EQ(p0->closed->code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_THAT(p1->PeerNames(), IsEmpty());
  members.registry.Beat(1, p0.get(), ReadyBeat());  // too late
  EXPECT_EQ(members.registry.Workers().size(), 1u);
}

TEST(Registry, AWorkerThatGoesUndrainedIsLost) {
  Members members;
  v1::Heartbeat draining = ReadyBeat();
  draining.set_ready(false);
  const auto drained = members.JoinPrefill("p0", 1), killed = members.JoinPrefill("p1", 2);
  members.JoinDecode("d0", 3);
  const auto left = members.JoinDecode("d1", 4);
  members.registry.Beat(2, killed.get(), draining);  // not ready, and no more
  draining.set_draining(true);
  members.registry.Beat(1, drained.get(), draining);
  members.registry.Beat(4, left.get(), draining);
  members.registry.Remove(1, drained.get(), "its stream ended");
  EXPECT_EQ(members.registry.lost(v1::WORKER_ROLE_PREFILL), 0);
  members.registry.Remove(2, killed.get(), "its stream ended");
  EXPECT_EQ(members.registry.lost(v1::WORKER_ROLE_PREFILL), 1);
  members.clock.Advance(3);
  members.registry.Expire();  // d0 and d1
  EXPECT_EQ(members.registry.lost(v1::WORKER_ROLE_DECODE), 1);
  // The router's own end is not theirs.
  const auto last = members.JoinPrefill("p2", 5);
  members.registry.CloseLinks(absl::UnavailableError("the router is shutting down"));
  members.registry.Remove(5, last.get(), "its stream ended");
  EXPECT_EQ(members.registry.lost(v1::WORKER_ROLE_PREFILL), 1);
}

TEST(Registry, TheSameInstanceAgainReplacesItsLinkOnly) {
  Members members;
  int gone = 0;
  members.registry.set_on_gone([&](InstanceId, const std::string&) { ++gone; });
  const auto old_link = members.JoinPrefill("p0", 1);
  const Registry::LoadHold hold = members.registry.Load(1, 500, 0);
  const auto new_link = members.JoinPrefill("p0", 1);
  ASSERT_NE(new_link, nullptr);
  EXPECT_TRUE(old_link->closed.has_value());
  members.registry.Remove(1, old_link.get(), "its stream ended");  // heard of late
  EXPECT_EQ(gone, 0);
  EXPECT_EQ(members.Find("p0").outstanding_tokens, 500);
  members.registry.Remove(1, new_link.get(), "its stream ended");
  EXPECT_EQ(gone, 1);
}

TEST(Registry, LoadIsCountedAndComesBack) {
  Members members;
  const auto link = members.JoinPrefill("p0", 1);
  {
    Registry::LoadHold hold = members.registry.Load(1, 1000, 30 << 20);
    hold.FinishTokens(400);
    WorkerView worker = members.Find("p0");
    EXPECT_EQ(worker.running_requests, 1);
    EXPECT_EQ(worker.outstanding_tokens, 600);
    EXPECT_EQ(worker.load_tokens(), 600);
    EXPECT_EQ(worker.free_memory_bytes, 70 << 20);
    // The next beat knows of the memory already.
    v1::Heartbeat beat = ReadyBeat(70 << 20);
    beat.set_queued_tokens(900);  // another router's included
    members.registry.Beat(1, link.get(), beat);
    worker = members.Find("p0");
    EXPECT_EQ(worker.free_memory_bytes, 70 << 20);
    EXPECT_EQ(worker.load_tokens(), 900);
    Registry::LoadHold moved = std::move(hold);
  }
  const WorkerView worker = members.Find("p0");
  EXPECT_EQ(worker.running_requests, 0);
  EXPECT_EQ(worker.outstanding_tokens, 0);
  EXPECT_EQ(worker.free_memory_bytes, 100 << 20);
}

TEST(Registry, AHoldOnAnEarlierLifeDoesNotTouchTheNext) {
  Members members;
  auto link = members.JoinPrefill("p0", 1);
  Registry::LoadHold hold = members.registry.Load(1, 1000, 1000);
  members.registry.Remove(1, link.get(), "lost");
  link = members.JoinPrefill("p0", 1);
  hold = {};
  EXPECT_EQ(members.Find("p0").running_requests, 0);
  EXPECT_EQ(members.Find("p0").outstanding_tokens, 0);
  EXPECT_EQ(members.Find("p0").free_memory_bytes, 100 << 20);
}

}  // namespace
}  // namespace salamander::router
