// The oracle's cases through real processes over UCX: the answer depends neither on how many prefill workers share the
// prompt, nor on the length of spans, nor on the codec.
#include "tests/testing/golden.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <memory>
#include <string>
#include <tuple>

#include "absl/strings/str_cat.h"
#include "tests/testing/process_cluster.h"

namespace salamander {
namespace {

using testing::Answer;
using testing::CheckAnswer;
using testing::CheckCapture;
using testing::CheckSameTensors;
using testing::ClusterOptions;
using testing::Golden;
using testing::ProcessCluster;

constexpr int64_t kSpanTokens[] = {128, 384, 8192};
constexpr double kLogitTolerance = 1e-3;
constexpr double kCaptureTolerance = 1e-4;

// Golden case, prefill workers.
class ClusterGoldenTest : public ::testing::TestWithParam<std::tuple<std::string, int>> {
 protected:
  void TearDown() override { std::filesystem::remove_all(captures_); }

  std::string CaptureOf(const Answer& answer) const {
    return absl::StrCat(captures_, "/", answer.request_id, ".safetensors");
  }

  const std::string captures_ =
      absl::StrCat(::testing::TempDir(), "/captures-", std::get<0>(GetParam()), "-", std::get<1>(GetParam()));
};

// The plan of `answer` is the one the router was started for; otherwise the test would compare the same thing twice.
void ExpectPlan(const Answer& answer, int64_t prompt_tokens, int64_t span_tokens, int workers) {
  const int64_t spans = (prompt_tokens + span_tokens - 1) / span_tokens;
  ASSERT_EQ(answer.finished.spans_size(), spans);
  std::set<std::string> used;
  for (int64_t i = 0; i < spans; ++i) {
    EXPECT_EQ(answer.finished.spans(i).begin(), i * span_tokens);
    EXPECT_EQ(answer.finished.spans(i).end(), std::min((i + 1) * span_tokens, prompt_tokens));
    used.insert(answer.finished.spans(i).worker());
  }
  EXPECT_EQ(static_cast<int64_t>(used.size()), std::min<int64_t>(spans, workers));
}

// Six routers over the same workers: every span length, raw and lossless.
TEST_P(ClusterGoldenTest, EverySplitGivesTheOraclesAnswer) {
  const auto& [name, workers] = GetParam();
  const Golden golden(name);
  std::filesystem::create_directories(captures_);
  ClusterOptions options{.model = golden.folder, .prefill_workers = workers, .routers = {}};
  for (const int64_t span_tokens : kSpanTokens) {
    for (const v1::Codec codec : {v1::CODEC_RAW, v1::CODEC_LOSSLESS}) options.routers.push_back({span_tokens, codec});
  }
  options.max_logprobs = golden.vocab_size;
  options.capture_dir = captures_;
  const std::unique_ptr<ProcessCluster> cluster = ProcessCluster::Start(options).value();

  for (size_t router = 0; router < options.routers.size(); router += 2) {
    const int64_t span_tokens = options.routers[router].span_tokens;
    SCOPED_TRACE(absl::StrCat("spans of ", span_tokens));
    const Answer raw = cluster->Generate(golden.Request(true), static_cast<int>(router));
    const Answer lossless = cluster->Generate(golden.Request(true), static_cast<int>(router) + 1);
    for (const Answer& answer : {raw, lossless}) {
      EXPECT_EQ(CheckAnswer(golden, answer, kLogitTolerance), absl::OkStatus());
      EXPECT_EQ(CheckCapture(golden, CaptureOf(answer), kCaptureTolerance), absl::OkStatus());
      ExpectPlan(answer, static_cast<int64_t>(golden.prompt.size()), span_tokens, workers);
      EXPECT_EQ(answer.finished.reason(), v1::FINISH_REASON_LENGTH);
    }
    EXPECT_EQ(CheckSameTensors(CaptureOf(raw), CaptureOf(lossless)), absl::OkStatus());
  }
}

INSTANTIATE_TEST_SUITE_P(Cases, ClusterGoldenTest,
                         ::testing::Combine(::testing::ValuesIn(testing::kGoldenCases), ::testing::Values(1, 2, 3, 5)),
                         [](const auto& test) {
                           return absl::StrCat(std::get<0>(test.param), "_", std::get<1>(test.param), "_workers");
                         });

}  // namespace
}  // namespace salamander
