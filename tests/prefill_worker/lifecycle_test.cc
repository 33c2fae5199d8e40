// However a request ends, both kinds of workers get their memory back, to the byte, and go on.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <functional>
#include <future>
#include <string>
#include <thread>

#include "absl/strings/str_cat.h"
#include "tests/common/worker/played_cluster.h"
#include "tests/testing/make_checkpoint.h"

namespace salamander {
namespace {

using testing::PlayedCluster;
using testing::PlayedClusterOptions;
using testing::PlayedRequest;
using testing::PlayedSpec;
using Seen = testing::PlayedRequest::Seen;

MATCHER_P2(HasStatus, code, text, "") {
  *result_listener << arg.ToString();
  return arg.code() == code && ::testing::Value(std::string(arg.message()), ::testing::HasSubstr(text));
}

// The cluster still gives the oracle's tokens.
void ExpectWorks(PlayedCluster& cluster) {
  const std::vector<int32_t> expected = cluster.continuation();
  auto request = cluster.Request({.max_tokens = static_cast<int64_t>(expected.size())});
  EXPECT_EQ(cluster.Run(*request), absl::OkStatus());
  EXPECT_EQ(request->tokens(), expected);
  EXPECT_TRUE(cluster.MemoryIsBack());
}

TEST(CancelTest, AtEveryStage) {
  PlayedCluster cluster({.golden = "sparse"});
  const std::vector<std::pair<std::string, std::function<bool(const Seen&)>>> stages = {
      {"at once", [](const Seen&) { return true; }},
      {"first span started", [](const Seen& seen) { return seen.spans_started >= 1; }},
      {"first span done", [](const Seen& seen) { return seen.spans_done >= 1; }},
      {"half of the spans done", [](const Seen& seen) { return seen.spans_done >= 6; }},
      {"all spans done", [](const Seen& seen) { return seen.spans_done >= 12; }},
      {"ready", [](const Seen& seen) { return seen.ready; }},
      {"first token", [](const Seen& seen) { return !seen.tokens.empty(); }},
      {"some tokens", [](const Seen& seen) { return seen.tokens.size() >= 20; }},
  };
  for (const auto& [stage, reached] : stages) {
    auto request = cluster.Request({.max_tokens = 2000});
    ASSERT_EQ(request->Reserve(), absl::OkStatus()) << stage;
    request->Start();
    ASSERT_TRUE(request->WaitUntil(reached)) << stage;
    request->Cancel();
    EXPECT_EQ(request->Wait(), absl::OkStatus()) << stage;
    EXPECT_FALSE(request->seen().finished) << stage;
    EXPECT_TRUE(cluster.MemoryIsBack()) << stage;
  }
  ExpectWorks(cluster);
}

TEST(CancelTest, AtRandomMomentsManyAtOnce) {
  PlayedCluster cluster({.golden = "dense", .prefill_workers = 3, .max_active_spans = 1});
  for (int round = 0; round < 10; ++round) {
    std::vector<std::unique_ptr<PlayedRequest>> requests;
    for (int i = 0; i < 6; ++i) {
      requests.push_back(cluster.Request({.max_tokens = 100}));
      ASSERT_EQ(requests.back()->Reserve(), absl::OkStatus());
      requests.back()->Start();
    }
    for (size_t i = 0; i < requests.size(); i += 2) {
      std::this_thread::sleep_for(std::chrono::microseconds(700 * round));  // The moment is what varies.
      requests[i]->Cancel();
    }
    for (const auto& request : requests) EXPECT_EQ(request->Wait(), absl::OkStatus());
    for (size_t i = 1; i < requests.size(); i += 2) EXPECT_EQ(requests[i]->tokens().size(), 100u);
  }
  EXPECT_TRUE(cluster.MemoryIsBack());
}

TEST(LeaseTest, UnclaimedReservationEnds) {
  PlayedCluster cluster({});
  auto request = cluster.Request({.lease_seconds = 0.05});
  ASSERT_EQ(request->Reserve(), absl::OkStatus());
  EXPECT_TRUE(cluster.MemoryIsBack());
  request->Start();
  EXPECT_THAT(request->Wait(), HasStatus(absl::StatusCode::kNotFound, "lease"));
  ExpectWorks(cluster);
}

TEST(LeaseTest, ReleaseEndsItAtOnce) {
  PlayedCluster cluster({});
  auto request = cluster.Request({.lease_seconds = 500});
  ASSERT_EQ(request->Reserve(), absl::OkStatus());
  request->Release();
  EXPECT_TRUE(cluster.MemoryIsBack());
  request->Release();  // Again: not an error.
  ExpectWorks(cluster);
}

TEST(ReserveTest, RefusesByNameAndKeepsNothing) {
  PlayedCluster cluster({});
  struct Case {
    std::string text;
    std::function<void(v1::Plan&)> spoil;
    PlayedSpec spec;
  };
  const std::vector<Case> cases = {
      {"codec", [](v1::Plan& plan) { plan.set_codec(static_cast<v1::Codec>(9)); }, {}},
      {"", [](v1::Plan& plan) { plan.mutable_spans(1)->set_begin(100); }, {}},
      {"", [](v1::Plan& plan) { plan.set_prompt_tokens(plan.prompt_tokens() + 1); }, {}},
      {"decode_worker", [](v1::Plan& plan) { plan.mutable_decode_worker()->set_instance_id(7); }, {}},
      {"lease_seconds", [](v1::Plan&) {}, {.lease_seconds = -1}},
      {"prefill_workers", [](v1::Plan& plan) { plan.mutable_prefill_workers(0)->set_instance_id(7); }, {}},
      {"spans[0]", [](v1::Plan&) {}, {.prompt = std::vector<int32_t>(2200, 1), .span_tokens = 2176}},
      {"this worker has", [](v1::Plan&) {}, {.max_tokens = 1 << 24}},
  };
  for (const Case& test : cases) {
    auto request = cluster.Request(test.spec);
    test.spoil(request->plan());
    EXPECT_THAT(request->Reserve(), HasStatus(absl::StatusCode::kInvalidArgument, test.text));
    request->Release();
    EXPECT_TRUE(cluster.MemoryIsBack()) << test.text;
  }
  ExpectWorks(cluster);
}

TEST(ReserveTest, MoreThanIsFreeNowIsRefusedUntilItIs) {
  PlayedCluster cluster({.prefill_workers = 1});
  const int64_t free_bytes = cluster.router().worker("d0").last.free_memory_bytes();
  const v1::WorkerHello hello = cluster.router().worker("d0").hello;
  EXPECT_EQ(free_bytes, hello.request_memory_bytes());
  const int64_t most = (free_bytes - hello.bytes_per_request()) / hello.page_group_bytes() * 1024;
  const auto prompt_tokens = static_cast<int64_t>(cluster.prompt().size());
  auto large = cluster.Request({.max_tokens = most - prompt_tokens});
  ASSERT_EQ(large->Reserve(), absl::OkStatus()) << "exactly all there is";
  auto small = cluster.Request();
  EXPECT_THAT(small->Reserve(), HasStatus(absl::StatusCode::kResourceExhausted, "free"));
  auto too_large = cluster.Request({.max_tokens = most - prompt_tokens + 1});
  EXPECT_THAT(too_large->Reserve(), HasStatus(absl::StatusCode::kInvalidArgument, "for all requests"));
  large->Release();
  ASSERT_TRUE(cluster.MemoryIsBack());
  ExpectWorks(cluster);
}

TEST(StartTest, RefusesByNameAndEndsTheRequest) {
  PlayedCluster cluster({});
  struct Case {
    std::string text;
    std::function<void(v1::PrefillStart&)> prefill;
    std::function<void(v1::DecodeStart&)> decode;
  };
  const std::vector<Case> cases = {
      {"tokens[3]", [](v1::PrefillStart& start) { start.set_tokens(3, 512); }, nullptr},
      {"tokens[0]: -1", [](v1::PrefillStart& start) { start.set_tokens(0, -1); }, nullptr},
      {"start.tokens", [](v1::PrefillStart& start) { start.add_tokens(1); }, nullptr},
      {"subscribers", [](v1::PrefillStart& start) { start.mutable_subscribers()->RemoveLast(); }, nullptr},
      {"max_tokens", nullptr, [](v1::DecodeStart& start) { start.set_max_tokens(0); }},
      {"temperature", nullptr, [](v1::DecodeStart& start) { start.mutable_sampling()->set_temperature(-1); }},
  };
  for (const Case& test : cases) {
    auto request = cluster.Request({.decode_start = test.decode, .prefill_start = test.prefill});
    EXPECT_THAT(cluster.Run(*request), HasStatus(absl::StatusCode::kInvalidArgument, test.text));
    EXPECT_TRUE(cluster.MemoryIsBack()) << test.text;
  }
  ExpectWorks(cluster);
}

// Whether a message of the fake network is an item of this kind.
std::function<bool(std::string_view)> Only(v1::ItemKind kind) {
  return [kind](std::string_view header) {
    v1::ItemHeader item;
    return item.ParseFromArray(header.data(), static_cast<int>(header.size())) && item.kind() == kind;
  };
}

class FaultTest : public ::testing::TestWithParam<std::pair<v1::ItemKind, const char*>> {};

TEST_P(FaultTest, LostItemFailsTheRequestByName) {
  const auto& [kind, name] = GetParam();
  PlayedCluster cluster({.missing_item_seconds = 0.1, .faults = {.drop = 1, .only = Only(kind)}});
  auto request = cluster.Request({});
  EXPECT_THAT(cluster.Run(*request), HasStatus(absl::StatusCode::kDataLoss, name));
  EXPECT_TRUE(request->tokens().empty());
  EXPECT_TRUE(cluster.MemoryIsBack());
}

TEST_P(FaultTest, CorruptItemFailsTheRequestByName) {
  const auto& [kind, name] = GetParam();
  PlayedCluster cluster({.faults = {.corrupt = 1, .only = Only(kind)}});
  auto request = cluster.Request({});
  EXPECT_THAT(cluster.Run(*request), HasStatus(absl::StatusCode::kDataLoss, name));
  EXPECT_TRUE(request->tokens().empty());
  EXPECT_TRUE(cluster.MemoryIsBack());
}

INSTANTIATE_TEST_SUITE_P(, FaultTest,
                         ::testing::Values(std::pair(v1::ITEM_KIND_KEYS_VALUES, "keys-values of layer"),
                                           std::pair(v1::ITEM_KIND_STATE, "state of layer"),
                                           std::pair(v1::ITEM_KIND_HIDDEN, "hidden")),
                         [](const auto& param_info) {
                           return absl::StrCat("kind_", static_cast<int>(param_info.param.first));
                         });

TEST(HarmlessFaultTest, DelayedReorderedAndDuplicatedItemsChangeNothing) {
  PlayedCluster cluster({.golden = "odd",
                         .prefill_workers = 3,
                         .faults = {.duplicate = 0.3, .delay = 0.3, .max_delay_seconds = 0.01, .reorder = true}});
  ExpectWorks(cluster);
}

TEST(LossTest, PeersOfALostPrefillWorkerFailAndFreeTheirMemory) {
  PlayedCluster cluster({.golden = "sparse"});
  auto request = cluster.Request({.max_tokens = 2000});
  ASSERT_EQ(request->Reserve(), absl::OkStatus());
  request->Start();
  ASSERT_TRUE(request->WaitUntil([](const Seen& seen) { return seen.spans_done >= 2; }));
  cluster.network().Kill(cluster.router().worker(PlayedCluster::PrefillName(1)).hello.transport_address());
  EXPECT_FALSE(request->Wait().ok());
  EXPECT_TRUE(cluster.MemoryIsBack());
}

TEST(DrainTest, FinishesWhatRunsAndTakesNothingNew) {
  PlayedCluster cluster({});
  auto request = cluster.Request({.max_tokens = 200});
  ASSERT_EQ(request->Reserve(), absl::OkStatus());
  request->Start();
  ASSERT_TRUE(request->WaitUntil([](const Seen& seen) { return seen.spans_started > 0; }));
  auto prefill = std::async(std::launch::async, [&] { cluster.prefill()[0]->Drain(60); });
  auto decode = std::async(std::launch::async, [&] { cluster.decode()->Drain(60); });
  ASSERT_TRUE(cluster.router().WaitFor([](const testing::PlayedRouter::Workers& workers) {
    return !workers.at("p0").last.ready() && !workers.at("d0").last.ready();
  }));
  auto late = cluster.Request();
  EXPECT_THAT(late->Reserve(), HasStatus(absl::StatusCode::kUnavailable, "draining"));
  EXPECT_EQ(request->Wait(), absl::OkStatus());
  EXPECT_EQ(request->tokens().size(), 200u);
  prefill.get();
  decode.get();
  EXPECT_TRUE(cluster.MemoryIsBack());
}

// A process ends as soon as its workers have drained. What the router has not read by then must reach it all the same.
TEST(DrainTest, WhatIsUnreadArrivesThoughTheWorkerEnds) {
  PlayedCluster cluster({});
  auto request = cluster.Request({.max_tokens = 4000, .deaf = true, .decode_start = [](v1::DecodeStart& start) {
                                    start.set_logprobs(200);  // more bytes than gRPC buffers for a reader
                                  }});
  ASSERT_EQ(request->Reserve(), absl::OkStatus());
  request->Start();
  // Decoded to its end: the memory has been taken, and is back.
  const auto held = [&] { return cluster.decode()->memory().held[static_cast<int>(MemoryOwner::kPages)]; };
  ASSERT_GT(held(), 0);
  while (held() > 0) std::this_thread::sleep_for(std::chrono::milliseconds(2));
  auto router = std::async(std::launch::async, [&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
    request->Hear();
  });
  cluster.decode()->Drain(60);
  cluster.decode().reset();
  EXPECT_EQ(request->Wait(), absl::OkStatus());
  EXPECT_EQ(request->tokens().size(), 4000u);
}

TEST(DrainTest, EndsWhatOutlastsTheGrace) {
  PlayedCluster cluster({});
  auto request = cluster.Request({.max_tokens = 100'000});
  ASSERT_EQ(request->Reserve(), absl::OkStatus());
  request->Start();
  ASSERT_TRUE(request->WaitUntil([](const Seen& seen) { return !seen.tokens.empty(); }));
  cluster.decode()->Drain(0.05);
  EXPECT_THAT(request->Wait(), HasStatus(absl::StatusCode::kUnavailable, "grace"));
  EXPECT_TRUE(cluster.MemoryIsBack());
}

TEST(EndTest, AWorkerMayBeDestroyedInTheMiddleOfARequest) {
  PlayedCluster cluster({.golden = "sparse"});
  auto request = cluster.Request({.max_tokens = 2000});
  ASSERT_EQ(request->Reserve(), absl::OkStatus());
  request->Start();
  ASSERT_TRUE(request->WaitUntil([](const Seen& seen) { return seen.spans_done >= 1; }));
  cluster.prefill()[0].reset();
  EXPECT_FALSE(request->Wait().ok());
}

TEST(RegistrationTest, ARefusalIsFatal) {
  testing::PlayedRouter router(absl::FailedPreconditionError("another model"));
  transport::FakeNetwork network({});
  std::promise<absl::Status> fatal;
  decode::DecodeWorkerOptions options;
  options.model = testing::GoldenCheckpoint("dense");
  options.routers = {router.address()};
  options.server.metrics_listen = "";
  options.memory_bytes = 64 << 20;
  options.transfer_buffer_bytes = 2 << 20;
  options.on_fatal = [&](const absl::Status& status) { fatal.set_value(status); };
  auto worker = decode::StartWorker(options, network.CreateTransport());
  ASSERT_TRUE(worker.ok()) << worker.status();
  EXPECT_THAT(fatal.get_future().get(), HasStatus(absl::StatusCode::kFailedPrecondition, "another model"));
}

TEST(OptionsTest, TooLittleMemoryIsRefusedByName) {
  transport::FakeNetwork network({});
  decode::DecodeWorkerOptions options;
  options.model = testing::GoldenCheckpoint("dense");
  options.memory_bytes = 4 << 20;
  options.transfer_buffer_bytes = 2 << 20;
  const absl::Status status = decode::StartWorker(options, network.CreateTransport()).status();
  EXPECT_FALSE(status.ok());
  EXPECT_THAT(std::string(status.message()), ::testing::HasSubstr("memory"));
}

}  // namespace
}  // namespace salamander
