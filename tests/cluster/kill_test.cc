// Processes that die while requests run on them: clients hear of it within seconds, the others give their memory back,
// and the cluster serves again.
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "common/base/clock.h"
#include "tests/testing/golden.h"
#include "tests/testing/process_cluster.h"

namespace salamander {
namespace {

using testing::Answer;
using testing::Cluster;
using testing::ClusterOptions;
using testing::Golden;
using testing::GreedyRequest;
using testing::ProcessCluster;
using testing::RunningRequest;

// From a death to the client's error.
constexpr double kNoticeSeconds = 5;
// From a death to the others' memory: the lease and some.
constexpr double kReleaseSeconds = 8;

class ClusterKillTest : public ::testing::Test {
 protected:
  void SetUp() override {
    cluster_ = ProcessCluster::Start({.model = golden_.folder, .routers = {{.span_tokens = 384}}}).value();
    idle_ = cluster_->IdleLedgers().value();
  }

  // In the middle of its prefill when it returns.
  std::unique_ptr<RunningRequest> StartPrefilling() {
    auto request =
        std::make_unique<RunningRequest>(cluster_->inference(), GreedyRequest(std::vector<int32_t>(200000, 7), 8), 120);
    EXPECT_TRUE(request->WaitUntil([](const Answer& so_far) { return so_far.progress.prefilled_tokens() > 0; }));
    return request;
  }
  // In the middle of its output when it returns.
  std::unique_ptr<RunningRequest> StartDecoding() {
    auto request = std::make_unique<RunningRequest>(cluster_->inference(), GreedyRequest(golden_.prompt, 100000), 120);
    EXPECT_TRUE(request->WaitUntil([](const Answer& so_far) { return so_far.tokens.size() > 3; }));
    return request;
  }
  void ExpectEndsUnavailable(RunningRequest& request) {
    const double start = RealClock().Now();
    const Answer& answer = request.Wait();
    EXPECT_EQ(answer.status.code(), absl::StatusCode::kUnavailable) << answer.status;
    EXPECT_LT(RealClock().Now() - start, kNoticeSeconds);
  }
  void ExpectLedgersBackWithout(const std::string& name) {
    auto others = idle_;
    others.erase(name);
    EXPECT_EQ(cluster_->WaitForLedgers(others, kReleaseSeconds), absl::OkStatus());
  }
  void ExpectServes() {
    const Answer answer = cluster_->Generate(golden_.Request(false));
    EXPECT_TRUE(answer.status.ok()) << answer.status;
    EXPECT_EQ(answer.tokens, golden_.continuation);
  }
  void ExpectServesAfterRestartOf(const std::string& name) {
    ASSERT_EQ(cluster_->Restart(name), absl::OkStatus());
    ASSERT_EQ(cluster_->WaitReady(), absl::OkStatus());
    ExpectServes();
    EXPECT_EQ(cluster_->WaitForLedgers(idle_, kReleaseSeconds), absl::OkStatus());
  }

  const Golden golden_{"crossing"};
  std::unique_ptr<ProcessCluster> cluster_;
  std::map<std::string, Cluster::Ledger> idle_;
};

TEST_F(ClusterKillTest, PrefillWorkerDuringPrefill) {
  const auto request = StartPrefilling();
  cluster_->Kill("prefill-1");
  ExpectEndsUnavailable(*request);
  ExpectLedgersBackWithout("prefill-1");
  ExpectServes();  // the other one alone
  ExpectServesAfterRestartOf("prefill-1");
}

TEST_F(ClusterKillTest, DecodeWorkerDuringPrefill) {
  const auto request = StartPrefilling();
  cluster_->Kill("decode-0");
  ExpectEndsUnavailable(*request);
  ExpectLedgersBackWithout("decode-0");
  ExpectServesAfterRestartOf("decode-0");
}

TEST_F(ClusterKillTest, DecodeWorkerDuringDecode) {
  const auto request = StartDecoding();
  cluster_->Kill("decode-0");
  ExpectEndsUnavailable(*request);
  ExpectLedgersBackWithout("decode-0");
  ExpectServesAfterRestartOf("decode-0");
}

TEST_F(ClusterKillTest, RouterDuringPrefillAndDecode) {
  const auto decoding = StartDecoding();
  const auto prefilling = StartPrefilling();
  cluster_->Kill("router-0");
  ExpectEndsUnavailable(*decoding);
  ExpectEndsUnavailable(*prefilling);
  ExpectLedgersBackWithout("router-0");
  ExpectServesAfterRestartOf("router-0");
}

// A request between the others' deaths must not be harmed by them.
TEST_F(ClusterKillTest, PrefillWorkerThatIsNoLongerNeeded) {
  const auto request = StartDecoding();
  cluster_->Kill("prefill-0");
  EXPECT_FALSE(request->WaitUntil([](const Answer& so_far) { return so_far.tokens.size() >= 100000; }, 2));
  EXPECT_TRUE(request->WaitUntil([](const Answer& so_far) { return so_far.tokens.size() > 500; }))
      << request->Wait().status;
  request->Cancel();
  EXPECT_EQ(request->Wait().status.code(), absl::StatusCode::kCancelled);
  ExpectLedgersBackWithout("prefill-0");
  ExpectServes();
}

TEST_F(ClusterKillTest, SigtermLetsRequestsFinishAndExitsWithZero) {
  RunningRequest request(cluster_->inference(), GreedyRequest(golden_.prompt, 500));
  ASSERT_TRUE(request.WaitUntil([](const Answer& so_far) { return !so_far.tokens.empty(); }));
  for (const char* name : {"router-0", "decode-0", "prefill-0", "prefill-1"}) {
    const absl::StatusOr<int> code = cluster_->Terminate(name, 30);
    ASSERT_TRUE(code.ok()) << name << ": " << code.status();
    EXPECT_EQ(*code, 0) << name;
  }
  EXPECT_TRUE(request.Wait().status.ok()) << request.Wait().status;
  EXPECT_EQ(request.Wait().tokens.size(), 500u);
}

}  // namespace
}  // namespace salamander
