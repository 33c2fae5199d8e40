// Where the time to first token goes: the parts add up, in every request and in the router's histograms, and the whole
// is the time that a client sees.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/clock.h"
#include "tests/cluster/scenarios.h"
#include "tests/common/service/raw_client.h"
#include "tests/testing/golden.h"
#include "tests/testing/process_cluster.h"

namespace salamander {
namespace {

using testing::Answer;
using testing::Golden;
using testing::MixedRequests;
using testing::ProcessCluster;
using testing::RunningRequest;

constexpr double kTolerance = 0.01;

std::map<std::string, double> Parts(const v1::Timing& timing) {
  return {{"router_queue", timing.router_queue()}, {"prefill_queue", timing.prefill_queue()},
          {"prefill", timing.prefill()},           {"transfer_exposed", timing.transfer_exposed()},
          {"decode_queue", timing.decode_queue()}, {"first_step", timing.first_step()}};
}

class TtftTest : public ::testing::Test {
 protected:
  void SetUp() override {
    cluster_ = ProcessCluster::Start({.model = golden_.folder, .routers = {{.span_tokens = 384}}}).value();
    scrape_ = Scrape();
  }
  std::string Scrape() const {
    return testing::HttpGet(cluster_->process("router-0").metrics_address, "/metrics").value();
  }
  // Of the histogram salamander_router_NAME_seconds, as last scraped.
  double Of(const std::string& name, const std::string& what) const {
    return testing::MetricValue(scrape_, absl::StrCat("salamander_router_", name, "_seconds_", what)).value();
  }
  // All parts have been observed `count` times, and together they are the whole.
  void ExpectHistogramsAgree(double count) {
    scrape_ = Scrape();
    double sum = 0;
    for (const auto& [part, unused] : Parts({})) {
      EXPECT_EQ(Of("ttft_" + part, "count"), count) << part;
      sum += Of("ttft_" + part, "sum");
    }
    EXPECT_EQ(Of("ttft", "count"), count);
    EXPECT_NEAR(sum, Of("ttft", "sum"), kTolerance * Of("ttft", "sum"));
  }

  const Golden golden_{"crossing"};
  std::unique_ptr<ProcessCluster> cluster_;
  std::string scrape_;
};

TEST_F(TtftTest, PartsAddUpInRequestsAndInHistograms) {
  const std::vector<v1::GenerateRequest> requests = MixedRequests(48, 3000, golden_.vocab_size, 21);
  std::vector<std::unique_ptr<RunningRequest>> running;
  for (const v1::GenerateRequest& request : requests) {
    running.push_back(std::make_unique<RunningRequest>(cluster_->inference(), request));
  }
  std::map<std::string, double> sums;
  double ttfts = 0;
  for (const auto& request : running) {
    const Answer& answer = request->Wait();
    ASSERT_TRUE(answer.status.ok()) << answer.status;
    double sum = 0;
    for (const auto& [part, seconds] : Parts(answer.finished.timing())) {
      EXPECT_GE(seconds, 0) << part;
      sum += seconds;
      sums[part] += seconds;
    }
    EXPECT_NEAR(sum, answer.finished.timing().ttft(), kTolerance * answer.finished.timing().ttft());
    ttfts += answer.finished.timing().ttft();
  }
  ExpectHistogramsAgree(static_cast<double>(requests.size()));
  // What clients were told is what was observed.
  EXPECT_NEAR(Of("ttft", "sum"), ttfts, 1e-6 * ttfts);
  for (const auto& [part, sum] : sums) EXPECT_NEAR(Of("ttft_" + part, "sum"), sum, 1e-6 * ttfts) << part;
}

TEST_F(TtftTest, ObservedAtTheFirstTokenWhateverComesLater) {
  v1::GenerateRequest request = golden_.Request(false);
  request.set_max_tokens(10000);
  RunningRequest running(cluster_->inference(), request);
  ASSERT_TRUE(running.WaitUntil([](const Answer& answer) { return !answer.tokens.empty(); }));
  ExpectHistogramsAgree(1);
  EXPECT_EQ(Of("request", "count"), 0);
  running.Cancel();
  EXPECT_EQ(running.Wait().status.code(), absl::StatusCode::kCancelled);
  ExpectHistogramsAgree(1);
  EXPECT_GT(Of("ttft_prefill", "sum"), 0);
  EXPECT_GT(Of("ttft_first_step", "sum"), 0);
}

TEST_F(TtftTest, TheWholeIsWhatAClientSees) {
  double best = 0;
  for (int round = 0; round < 5; ++round) {
    const double begin = RealClock().Now();
    RunningRequest running(cluster_->inference(), golden_.Request(false));
    ASSERT_TRUE(running.WaitUntil([](const Answer& answer) { return !answer.tokens.empty(); }));
    const double seen = RealClock().Now() - begin;
    const double told = running.Wait().finished.timing().ttft();
    EXPECT_LE(told, seen);
    best = std::max(best, told / seen);
  }
  EXPECT_GT(best, 0.8) << "of a busy machine's rounds the best";
}

}  // namespace
}  // namespace salamander
