// Prefill workers and a decode worker together give the oracle's tokens, however the prompt is split.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <tuple>

#include "absl/strings/str_cat.h"
#include "common/base/ids.h"
#include "tests/common/worker/played_cluster.h"

namespace salamander {
namespace {

using testing::PlayedCluster;
using testing::PlayedClusterOptions;
using testing::PlayedRequest;
using testing::PlayedSpec;

class GoldenClusterTest : public ::testing::TestWithParam<std::tuple<const char*, int>> {};

TEST_P(GoldenClusterTest, TokensAreTheOracles) {
  const auto& [golden, workers] = GetParam();
  PlayedCluster cluster({.golden = golden, .prefill_workers = workers, .faults = {.reorder = true}});
  const auto expected = cluster.continuation();
  for (int64_t span_tokens : {128, 384, 2048}) {
    for (v1::Codec codec : {v1::CODEC_LOSSLESS, v1::CODEC_RAW}) {
      auto request = cluster.Request(
          {.max_tokens = static_cast<int64_t>(expected.size()), .span_tokens = span_tokens, .codec = codec});
      ASSERT_EQ(cluster.Run(*request), absl::OkStatus()) << span_tokens << ", codec " << codec;
      EXPECT_EQ(request->tokens(), expected) << span_tokens << ", codec " << codec;
      EXPECT_EQ(request->seen().spans_done, request->plan().spans_size());
      EXPECT_EQ(request->seen().prefills_done, workers);
      EXPECT_EQ(request->seen().finish.reason(), v1::FINISH_REASON_LENGTH);
    }
  }
  EXPECT_TRUE(cluster.MemoryIsBack());
}

INSTANTIATE_TEST_SUITE_P(, GoldenClusterTest,
                         ::testing::Combine(::testing::Values("dense", "sparse", "crossing", "wide", "odd"),
                                            ::testing::Values(1, 2, 3)),
                         [](const auto& param_info) {
                           return absl::StrCat(std::get<0>(param_info.param), "_", std::get<1>(param_info.param));
                         });

// Largest difference over the range of `want`.
double WorstError(const model::TensorView& got, const model::TensorView& want) {
  const auto* a = reinterpret_cast<const float*>(got.data);
  const auto* b = reinterpret_cast<const float*>(want.data);
  float low = b[0], high = b[0];
  double worst = 0;
  for (int64_t i = 0; i < want.elements(); ++i) {
    low = std::min(low, b[i]);
    high = std::max(high, b[i]);
    worst = std::max(worst, std::abs(double{a[i]} - double{b[i]}));
  }
  return worst / (double{high} - double{low});
}

TEST(CaptureTest, WhatArrivedIsWhatTheOracleHas) {
  const std::filesystem::path folder = std::filesystem::path(::testing::TempDir()) / IdToString(RandomId());
  std::filesystem::create_directory(folder);
  PlayedCluster cluster({.golden = "sparse", .prefill_workers = 2, .capture_dir = folder});
  auto request = cluster.Request({.max_tokens = 2, .span_tokens = 384});
  ASSERT_EQ(cluster.Run(*request), absl::OkStatus());
  const auto file = model::SafetensorsFile::Open(folder / absl::StrCat(IdToString(request->id()), ".safetensors"));
  ASSERT_TRUE(file.ok()) << file.status();
  int compared = 0;
  for (const auto& [name, got] : (*file)->tensors()) {
    const std::string golden = name == "hidden" ? "hidden_last.5" : name;
    ASSERT_TRUE(cluster.golden().tensors().contains(golden)) << name;
    const model::TensorView& want = cluster.golden().tensors().at(golden);
    ASSERT_EQ(got.shape, want.shape) << name;
    EXPECT_LT(WorstError(got, want), 1e-4) << name;
    ++compared;
  }
  EXPECT_EQ(compared, 2 * 2 + 4 + 1) << "two sparse layers, four lightning layers, the hidden row";
  std::filesystem::remove_all(folder);
}

TEST(BatchTest, EachRequestGetsTheTokensItGetsAlone) {
  PlayedCluster cluster({.golden = "crossing", .prefill_workers = 2, .max_batch = 3});
  const std::vector<int32_t> prompt = cluster.prompt();
  const auto spec = [&](int i) {
    PlayedSpec one = {.prompt = {prompt.begin(), prompt.begin() + 100 + 50 * i}, .max_tokens = 6 + i};
    one.decode_start = [i](v1::DecodeStart& start) {
      if (i % 2 == 0) return;
      start.mutable_sampling()->set_temperature(1);
      start.mutable_sampling()->set_seed(i);
    };
    return one;
  };
  constexpr int kRequests = 8;
  std::vector<std::vector<int32_t>> alone;
  for (int i = 0; i < kRequests; ++i) {
    auto request = cluster.Request(spec(i));
    ASSERT_EQ(cluster.Run(*request), absl::OkStatus()) << i;
    alone.push_back(request->tokens());
    ASSERT_EQ(alone.back().size(), 6u + i);
  }
  std::vector<std::unique_ptr<PlayedRequest>> together;
  for (int i = 0; i < kRequests; ++i) {
    together.push_back(cluster.Request(spec(i)));
    ASSERT_EQ(together.back()->Reserve(), absl::OkStatus()) << i;
  }
  for (const auto& request : together) request->Start();
  for (int i = 0; i < kRequests; ++i) {
    EXPECT_EQ(together[i]->Wait(), absl::OkStatus()) << i;
    EXPECT_EQ(together[i]->tokens(), alone[i]) << i;
  }
  EXPECT_TRUE(cluster.MemoryIsBack());
}

TEST(BatchTest, ARouterThatDoesNotReadHoldsUpNobody) {
  PlayedCluster cluster({.golden = "dense", .prefill_workers = 1});
  constexpr int kTokens = 1500, kLogprobs = 100;
  // About 2 MB of events: more than any buffer between the two takes.
  auto deaf = cluster.Request({.max_tokens = kTokens, .deaf = true, .decode_start = [](v1::DecodeStart& start) {
                                 start.set_logprobs(kLogprobs);
                               }});
  ASSERT_EQ(deaf->Reserve(), absl::OkStatus());
  deaf->Start();
  auto other = cluster.Request({.max_tokens = kTokens + 100});
  ASSERT_EQ(cluster.Run(*other), absl::OkStatus()) << "ends after the deaf one's last step";
  EXPECT_TRUE(deaf->tokens().empty());
  deaf->Hear();
  ASSERT_EQ(deaf->Wait(), absl::OkStatus());
  const PlayedRequest::Seen seen = deaf->seen();
  ASSERT_EQ(seen.tokens.size(), static_cast<size_t>(kTokens));
  ASSERT_EQ(seen.logprobs.size(), static_cast<size_t>(kTokens));
  const std::vector<int32_t> others = other->tokens();
  EXPECT_TRUE(std::equal(seen.tokens.begin(), seen.tokens.end(), others.begin()));
  for (int i = 0; i < kTokens; ++i) EXPECT_EQ(seen.logprobs[i].token(), seen.tokens[i]);
  EXPECT_TRUE(cluster.MemoryIsBack());
}

TEST(LogprobsTest, OnePerTokenWithTheLikeliest) {
  PlayedCluster cluster({.golden = "dense", .prefill_workers = 1});
  auto request =
      cluster.Request({.max_tokens = 4, .decode_start = [](v1::DecodeStart& start) { start.set_logprobs(3); }});
  ASSERT_EQ(cluster.Run(*request), absl::OkStatus());
  const PlayedRequest::Seen seen = request->seen();
  ASSERT_EQ(seen.logprobs.size(), 4u);
  for (size_t i = 0; i < seen.tokens.size(); ++i) {
    const v1::TokenLogprob& logprob = seen.logprobs[i];
    EXPECT_EQ(logprob.token(), seen.tokens[i]);
    ASSERT_EQ(logprob.top_size(), 3);
    EXPECT_EQ(logprob.top(0).token(), seen.tokens[i]) << "greedy takes the likeliest";
    EXPECT_EQ(logprob.top(0).logprob(), logprob.logprob());
    EXPECT_LE(logprob.logprob(), 0);
  }
}

}  // namespace
}  // namespace salamander
