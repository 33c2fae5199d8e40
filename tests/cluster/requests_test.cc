// Requests good and bad, limits and deadlines, on a cluster in one process.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "common/base/clock.h"
#include "tests/cluster/scenarios.h"
#include "tests/testing/golden.h"
#include "tests/testing/in_process_cluster.h"

namespace salamander {
namespace {

using testing::Answer;
using testing::Cluster;
using testing::ClusterOptions;
using testing::ExpectCancelledRequestsLeaveNothing;
using testing::ExpectSameTogetherAsAlone;
using testing::Golden;
using testing::GreedyRequest;
using ::testing::HasSubstr;
using testing::InProcessCluster;
using testing::MixedRequests;
using testing::RunningRequest;

constexpr int64_t kMaxTotalTokens = 4 << 20;

class ClusterRequestsTest : public ::testing::Test {
 protected:
  void Start(const std::function<void(ClusterOptions&)>& adjust = [](ClusterOptions&) {}) {
    ClusterOptions options{.model = golden_.folder, .routers = {{.span_tokens = 384}}};
    options.max_span_tokens = 1024;
    options.worker_memory_bytes = 512 << 20;
    adjust(options);
    cluster_ = InProcessCluster::Start(options, transport::FakeFaults{}).value();
    idle_ = cluster_->IdleLedgers().value();
  }
  void ExpectIdle() { EXPECT_EQ(cluster_->WaitForLedgers(idle_, 10), absl::OkStatus()); }
  double DecodeMemory() { return static_cast<double>(cluster_->Ledgers().value().at("decode-0").at("free")); }
  // Takes seconds to prefill.
  v1::GenerateRequest LongRequest() { return GreedyRequest(std::vector<int32_t>(60000, 7), 8); }

  const Golden golden_{"dense"};
  std::unique_ptr<InProcessCluster> cluster_;
  std::map<std::string, Cluster::Ledger> idle_;
};

struct BadInput {
  const char* what;
  std::function<void(v1::GenerateRequest&)> spoil;
  // All of these are in the message: field, value, limit.
  std::vector<std::string> message;
};

const std::vector<BadInput>& BadInputs() {
  static const std::vector<BadInput> inputs = {
      {"empty tokens", [](auto& r) { r.mutable_prompt()->mutable_tokens()->clear_ids(); }, {"prompt.tokens", "empty"}},
      {"empty text", [](auto& r) { r.mutable_prompt()->Clear(), r.mutable_prompt()->set_text(""); }, {"prompt.text"}},
      {"no prompt", [](auto& r) { r.clear_prompt(); }, {"prompt", "exactly one"}},
      {"text and tokens", [](auto& r) { r.mutable_prompt()->set_text("x"); }, {"prompt", "exactly one"}},
      {"text that is not UTF-8",
       [](auto& r) { r.mutable_prompt()->Clear(), r.mutable_prompt()->set_text("ab\xFF"); },
       {"prompt.text", "UTF-8", "2"}},
      {"token id at the vocabulary's end",
       [](auto& r) { r.mutable_prompt()->mutable_tokens()->set_ids(1, 512); },
       {"prompt.tokens.ids[1]", "512"}},
      {"negative token id",
       [](auto& r) { r.mutable_prompt()->mutable_tokens()->set_ids(0, -1); },
       {"prompt.tokens.ids[0]", "-1", "512"}},
      {"max_tokens 0", [](auto& r) { r.set_max_tokens(0); }, {"max_tokens", "0"}},
      {"max_tokens negative", [](auto& r) { r.set_max_tokens(-5); }, {"max_tokens", "-5", "0"}},
      {"over the model's limit", [](auto& r) { r.set_max_tokens(kMaxTotalTokens); }, {"max_tokens", "4194304"}},
      {"so much over that a sum overflows",
       [](auto& r) { r.set_max_tokens(std::numeric_limits<int64_t>::max()); },
       {"max_tokens", "9223372036854775807"}},
      {"over any decode worker's memory",
       [](auto& r) { r.set_max_tokens(900000); },
       {"max_tokens", "decode", "memory"}},
      {"negative temperature", [](auto& r) { r.mutable_sampling()->set_temperature(-1); }, {"temperature", "-1", "0"}},
      {"temperature NaN", [](auto& r) { r.mutable_sampling()->set_temperature(NAN); }, {"temperature", "nan"}},
      {"top_p 0", [](auto& r) { r.mutable_sampling()->set_top_p(0); }, {"top_p", "0", "(0, 1]"}},
      {"top_p over 1", [](auto& r) { r.mutable_sampling()->set_top_p(1.5F); }, {"top_p", "1.5", "(0, 1]"}},
      {"top_p NaN", [](auto& r) { r.mutable_sampling()->set_top_p(NAN); }, {"top_p", "nan"}},
      {"stop without a kind", [](auto& r) { r.add_stop(); }, {"stop[0]", "text", "token_id"}},
      {"too many logprobs", [](auto& r) { r.set_logprobs(21); }, {"logprobs", "21", "20"}},
      {"priority", [](auto& r) { r.set_priority(101); }, {"priority", "101", "100"}},
  };
  return inputs;
}

TEST_F(ClusterRequestsTest, BadInputIsRefusedByNameAndLeavesNothing) {
  Start();
  for (const BadInput& input : BadInputs()) {
    SCOPED_TRACE(input.what);
    v1::GenerateRequest request = golden_.Request(false);
    input.spoil(request);
    const Answer answer = cluster_->Generate(request);
    EXPECT_EQ(answer.status.code(), absl::StatusCode::kInvalidArgument) << answer.status;
    for (const std::string& part : input.message) {
      EXPECT_THAT(std::string(answer.status.message()), HasSubstr(part));
    }
    EXPECT_TRUE(answer.request_id.empty()) << "Accepted although the request is wrong";
    EXPECT_EQ(cluster_->Ledgers().value(), idle_);
  }
  EXPECT_EQ(cluster_->Generate(golden_.Request(false)).tokens, golden_.continuation);
}

TEST_F(ClusterRequestsTest, DeadlineStopsEveryWorker) {
  Start();
  const double start = RealClock().Now();
  RunningRequest request(cluster_->inference(), LongRequest(), 0.7);
  const Answer& answer = request.Wait();
  EXPECT_EQ(answer.status.code(), absl::StatusCode::kDeadlineExceeded) << answer.status;
  EXPECT_TRUE(answer.tokens.empty());
  EXPECT_LT(RealClock().Now() - start, 5);
  ExpectIdle();
}

TEST_F(ClusterRequestsTest, FullQueueRefusesAtOnce) {
  Start([](ClusterOptions& options) {
    options.queue_limit = 2;
    options.max_running = 1;
  });
  std::vector<std::unique_ptr<RunningRequest>> admitted;
  const auto accepted = [](const Answer& so_far) { return !so_far.request_id.empty(); };
  for (int i = 0; i < 3; ++i) {
    admitted.push_back(std::make_unique<RunningRequest>(cluster_->inference(), LongRequest()));
    ASSERT_TRUE(admitted.back()->WaitUntil(accepted, 10)) << admitted.back()->Wait().status;
  }
  const double start = RealClock().Now();
  const Answer refused = cluster_->Generate(LongRequest());
  EXPECT_EQ(refused.status.code(), absl::StatusCode::kResourceExhausted) << refused.status;
  EXPECT_THAT(std::string(refused.status.message()), HasSubstr("2"));
  EXPECT_LT(RealClock().Now() - start, 2);
  admitted.clear();
  ExpectIdle();
  EXPECT_EQ(cluster_->Generate(golden_.Request(false)).tokens, golden_.continuation);
}

TEST_F(ClusterRequestsTest, RequestsWaitForMemoryInsteadOfFailing) {
  Start();
  // Each takes more than half of the decode worker's memory: a group of 1024 tokens takes from 1 to 1.2 MiB.
  v1::GenerateRequest request = golden_.Request(false);
  request.set_max_tokens(static_cast<int64_t>(0.65 / 1.2 / (1 << 20) * 1024 * DecodeMemory()));
  request.clear_ignore_eos();
  for (const int32_t token : golden_.continuation) request.add_stop()->set_token_id(token);
  v1::GenerateRequest endless = request;
  endless.clear_stop();
  endless.set_ignore_eos(true);

  RunningRequest first(cluster_->inference(), endless);
  ASSERT_TRUE(first.WaitUntil([](const Answer& so_far) { return !so_far.tokens.empty(); })) << first.Wait().status;
  RunningRequest second(cluster_->inference(), request);
  ASSERT_TRUE(second.WaitUntil([](const Answer& so_far) { return !so_far.request_id.empty(); }));
  EXPECT_FALSE(second.WaitUntil([](const Answer& so_far) { return so_far.status.ok() && !so_far.tokens.empty(); }, 1));
  first.Cancel();
  EXPECT_TRUE(second.Wait().status.ok()) << second.Wait().status;
  EXPECT_EQ(second.Wait().finished.reason(), v1::FINISH_REASON_STOP);
  ExpectIdle();
}

TEST_F(ClusterRequestsTest, ManyAtOnceEachGetWhatTheyGetAlone) {
  Start();
  ExpectSameTogetherAsAlone(*cluster_, MixedRequests(12, 1500, golden_.vocab_size, 21));
}

TEST_F(ClusterRequestsTest, CancelledRequestsLeaveNothing) {
  Start();
  ExpectCancelledRequestsLeaveNothing(*cluster_, MixedRequests(40, 3000, golden_.vocab_size, 22), 23);
}

TEST_F(ClusterRequestsTest, ShortRequestsDoNotWaitForALongOne) {
  Start();
  RunningRequest longer(cluster_->inference(), LongRequest());
  ASSERT_TRUE(longer.WaitUntil([](const Answer& so_far) { return so_far.progress.prefilled_tokens() > 0; }));
  EXPECT_EQ(cluster_->Generate(golden_.Request(false)).tokens, golden_.continuation);
  EXPECT_FALSE(longer.WaitUntil([](const Answer& so_far) { return !so_far.tokens.empty(); }, 0));
  longer.Cancel();
  longer.Wait();
  ExpectIdle();
}

TEST_F(ClusterRequestsTest, DrainingRouterFinishesWhatRunsAndTakesNothingNew) {
  Start();
  v1::GenerateRequest request = golden_.Request(false);
  request.set_max_tokens(300);
  RunningRequest running(cluster_->inference(), request);
  ASSERT_TRUE(running.WaitUntil([](const Answer& so_far) { return !so_far.tokens.empty(); }));
  cluster_->router().Drain(30);
  EXPECT_TRUE(running.Wait().status.ok()) << running.Wait().status;
  EXPECT_EQ(running.Wait().tokens.size(), 300u);
  EXPECT_EQ(cluster_->Generate(golden_.Request(false)).status.code(), absl::StatusCode::kUnavailable);
}

}  // namespace
}  // namespace salamander
