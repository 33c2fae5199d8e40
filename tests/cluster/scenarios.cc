#include "tests/cluster/scenarios.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <memory>
#include <random>
#include <thread>

namespace salamander::testing {
namespace {

constexpr int64_t kMaxOutputTokens = 24;
// Cancelled requests are cancelled within this time after their start.
constexpr int kCancelWithinMilliseconds = 400;
// More than can be generated until then.
constexpr int64_t kEndlessTokens = 10000;
constexpr double kSettleSeconds = 15;

}  // namespace

std::vector<v1::GenerateRequest> MixedRequests(int count, int64_t longest, int vocab_size, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<v1::GenerateRequest> requests;
  for (int i = 0; i < count; ++i) {
    // Log-uniform: as many of one to ten tokens as of a hundred to a thousand.
    const double exponent = std::uniform_real_distribution<>(0, 1)(random);
    std::vector<int32_t> prompt(std::max<int64_t>(1, static_cast<int64_t>(std::pow(longest, exponent))));
    for (int32_t& token : prompt) token = static_cast<int32_t>(random() % vocab_size);
    v1::GenerateRequest request = GreedyRequest(prompt, 1 + static_cast<int64_t>(random() % kMaxOutputTokens));
    if (i % 2 == 1) {
      request.mutable_sampling()->set_temperature(0.9F);
      request.mutable_sampling()->set_top_p(0.95F);
      request.mutable_sampling()->set_seed(random());
    }
    requests.push_back(std::move(request));
  }
  return requests;
}

void ExpectSameTogetherAsAlone(Cluster& cluster, const std::vector<v1::GenerateRequest>& requests) {
  std::vector<Answer> alone;
  for (const v1::GenerateRequest& request : requests) {
    alone.push_back(cluster.Generate(request));
    ASSERT_TRUE(alone.back().status.ok()) << alone.back().status;
    ASSERT_EQ(static_cast<int64_t>(alone.back().tokens.size()), request.max_tokens());
  }
  std::vector<std::unique_ptr<RunningRequest>> together;
  for (const v1::GenerateRequest& request : requests) {
    together.push_back(std::make_unique<RunningRequest>(cluster.inference(), request));
  }
  for (size_t i = 0; i < requests.size(); ++i) {
    const Answer& answer = together[i]->Wait();
    EXPECT_TRUE(answer.status.ok()) << answer.status;
    EXPECT_EQ(answer.tokens, alone[i].tokens)
        << "request " << i << ", prompt of " << requests[i].prompt().tokens().ids_size();
  }
}

void ExpectCancelledRequestsLeaveNothing(Cluster& cluster, const std::vector<v1::GenerateRequest>& requests,
                                         uint64_t seed) {
  const auto idle = cluster.IdleLedgers();
  ASSERT_TRUE(idle.ok()) << idle.status();
  std::mt19937_64 random(seed);
  std::vector<std::pair<int, size_t>> cancels;  // milliseconds after the start, which
  for (size_t i = 0; i < requests.size(); i += 2) {
    cancels.emplace_back(static_cast<int>(random() % kCancelWithinMilliseconds), i);
  }
  std::sort(cancels.begin(), cancels.end());

  std::vector<std::unique_ptr<RunningRequest>> running;
  const auto start = std::chrono::steady_clock::now();
  for (size_t i = 0; i < requests.size(); ++i) {
    v1::GenerateRequest request = requests[i];
    if (i % 2 == 0) request.set_max_tokens(kEndlessTokens);
    running.push_back(std::make_unique<RunningRequest>(cluster.inference(), request));
  }
  for (const auto& [milliseconds, i] : cancels) {
    std::this_thread::sleep_until(start + std::chrono::milliseconds(milliseconds));
    running[i]->Cancel();
  }
  for (size_t i = 0; i < running.size(); ++i) {
    const absl::Status& status = running[i]->Wait().status;
    EXPECT_EQ(status.code(), i % 2 == 0 ? absl::StatusCode::kCancelled : absl::StatusCode::kOk) << status;
  }
  EXPECT_EQ(cluster.WaitForLedgers(*idle, kSettleSeconds), absl::OkStatus());
  const auto status = cluster.Status();
  ASSERT_TRUE(status.ok()) << status.status();
  EXPECT_EQ(status->running_requests(), 0);
  EXPECT_EQ(status->queued_requests(), 0);
}

}  // namespace salamander::testing
