#include "decode_worker/start.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <limits>
#include <string>

namespace salamander::decode {
namespace {

constexpr StartLimits kLimits = {.vocab_size = 100, .prompt_tokens = 3, .total_tokens = 13, .has_tokenizer = true};

v1::DecodeStart GoodStart() {
  v1::DecodeStart start;
  start.set_max_tokens(10);
  start.set_logprobs(-1);
  return start;
}

TEST(ParseStartTest, EveryFieldArrives) {
  v1::DecodeStart start = GoodStart();
  v1::SamplingOptions& sampling = *start.mutable_sampling();
  sampling.set_temperature(0.5f);
  sampling.set_top_p(0.9f);
  sampling.set_top_k(7);
  sampling.set_min_p(0.1f);
  sampling.set_repetition_penalty(1.5f);
  sampling.set_presence_penalty(0.25f);
  sampling.set_frequency_penalty(-0.5f);
  (*sampling.mutable_logit_bias())[5] = 2.0f;
  sampling.set_seed(99);
  start.add_stop()->set_text("end");
  start.add_stop()->set_token_id(8);
  start.set_ignore_eos(true);
  start.set_logprobs(4);
  for (int token : {1, 2, 3}) start.add_prompt_tokens(token);
  const auto options = ParseStart(start, kLimits);
  ASSERT_TRUE(options.ok()) << options.status();
  EXPECT_EQ(options->sampling.temperature, 0.5f);
  EXPECT_EQ(options->sampling.top_p, 0.9f);
  EXPECT_EQ(options->sampling.top_k, 7);
  EXPECT_EQ(options->sampling.min_p, 0.1f);
  EXPECT_EQ(options->sampling.repetition_penalty, 1.5f);
  EXPECT_EQ(options->sampling.presence_penalty, 0.25f);
  EXPECT_EQ(options->sampling.frequency_penalty, -0.5f);
  EXPECT_THAT(options->sampling.logit_bias, testing::ElementsAre(testing::Pair(5, 2.0f)));
  EXPECT_EQ(options->sampling.seed, 99u);
  EXPECT_THAT(options->stop_texts, testing::ElementsAre("end"));
  EXPECT_THAT(options->stop_token_ids, testing::ElementsAre(8));
  EXPECT_TRUE(options->ignore_eos);
  EXPECT_EQ(options->logprobs, 4);
  EXPECT_EQ(options->max_tokens, 10);
}

TEST(ParseStartTest, RefusesByName) {
  struct Case {
    std::string named;
    std::function<void(v1::DecodeStart&)> spoil;
    bool has_tokenizer = true;
  };
  const std::vector<Case> cases = {
      {"max_tokens: 0", [](v1::DecodeStart& s) { s.set_max_tokens(0); }},
      {"max_tokens: 11", [](v1::DecodeStart& s) { s.set_max_tokens(11); }},
      {"logprobs: 101", [](v1::DecodeStart& s) { s.set_logprobs(101); }},
      {"logprobs: -2", [](v1::DecodeStart& s) { s.set_logprobs(-2); }},
      {"temperature", [](v1::DecodeStart& s) { s.mutable_sampling()->set_temperature(-1); }},
      {"temperature",
       [](v1::DecodeStart& s) { s.mutable_sampling()->set_temperature(std::numeric_limits<float>::quiet_NaN()); }},
      {"top_p", [](v1::DecodeStart& s) { s.mutable_sampling()->set_top_p(0); }},
      {"stop[0]", [](v1::DecodeStart& s) { s.add_stop(); }},
      {"stop[0].text", [](v1::DecodeStart& s) { s.add_stop()->set_text(""); }},
      {"stop[0].text", [](v1::DecodeStart& s) { s.add_stop()->set_text("x"); }, /*has_tokenizer=*/false},
      {"prompt_tokens: 1", [](v1::DecodeStart& s) { s.add_prompt_tokens(1); }},
      {"prompt_tokens: 0", [](v1::DecodeStart& s) { s.mutable_sampling()->set_repetition_penalty(2); }},
      {"prompt_tokens[2]: 100",
       [](v1::DecodeStart& s) {
         for (int token : {0, 99, 100}) s.add_prompt_tokens(token);
       }},
  };
  for (const Case& test : cases) {
    v1::DecodeStart start = GoodStart();
    test.spoil(start);
    StartLimits limits = kLimits;
    limits.has_tokenizer = test.has_tokenizer;
    const absl::Status status = ParseStart(start, limits).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << test.named << ": " << status;
    EXPECT_THAT(std::string(status.message()), testing::HasSubstr(test.named));
  }
}

}  // namespace
}  // namespace salamander::decode
