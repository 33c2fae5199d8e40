#include "router/validate.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <string>
#include <vector>

namespace salamander::router {
namespace {

using ::testing::HasSubstr;

constexpr RequestLimits kLimits{
    .vocab_size = 1000, .max_total_tokens = 5000, .default_max_tokens = 256, .max_logprobs = 20};
const float kNan = std::numeric_limits<float>::quiet_NaN();
const float kInfinity = std::numeric_limits<float>::infinity();

struct PromptCase {
  std::function<void(v1::Prompt*)> change;
  std::string message;  // empty: fine
};

TEST(CheckPrompt, Table) {
  const std::vector<PromptCase> cases = {
      {[](v1::Prompt* p) { p->set_text("plain"); }, ""},
      {[](v1::Prompt* p) { p->set_text(std::string(kMaxPromptBytes, 'x')); }, ""},
      {[](v1::Prompt* p) { p->set_text(std::string(kMaxPromptBytes + 1, 'x')); },
       "prompt.text must be at most 67108864 bytes, got 67108865"},
      {[](v1::Prompt* p) {
         for (const int64_t bytes : {kMaxPromptBytes / 2, kMaxPromptBytes / 2 + 1}) {
           v1::ChatMessage* message = p->mutable_chat()->add_messages();
           message->set_role("user");
           message->set_content(std::string(bytes, 'x'));
         }
       },
       "prompt.chat must be at most 67108864 bytes, got 67108865"},
      {[](v1::Prompt* p) { p->set_text("grün 鲵"); }, ""},
      {[](v1::Prompt* p) { p->mutable_tokens()->add_ids(0); }, ""},
      {[](v1::Prompt* p) { p->mutable_tokens()->add_ids(999); }, ""},
      {[](v1::Prompt* p) { p->mutable_chat()->add_messages()->set_role("tool"); }, ""},
      {[](v1::Prompt*) {}, "prompt must be exactly one of text, tokens and chat, got 0 of them"},
      {[](v1::Prompt* p) {
         p->set_text("a");
         p->mutable_tokens()->add_ids(1);
       },
       "got 2 of them"},
      {[](v1::Prompt* p) {
         p->set_text("a");
         p->mutable_tokens();
         p->mutable_chat();
       },
       "got 3 of them"},
      {[](v1::Prompt* p) { p->set_text(""); }, "prompt.text must not be empty, got 0 bytes"},
      {[](v1::Prompt* p) { p->mutable_tokens(); }, "prompt.tokens must not be empty, got 0 ids"},
      {[](v1::Prompt* p) { p->mutable_chat(); }, "prompt.chat must not be empty, got 0 messages"},
      {[](v1::Prompt* p) { p->set_text("abc\xff"); },
       "prompt.text must be UTF-8, got an invalid byte at offset 3 of 4"},
      {[](v1::Prompt* p) {
         p->mutable_tokens()->add_ids(5);
         p->mutable_tokens()->add_ids(-1);
       },
       "prompt.tokens.ids[1] must be a token id in [0, 1000), got -1"},
      {[](v1::Prompt* p) { p->mutable_tokens()->add_ids(1000); },
       "prompt.tokens.ids[0] must be a token id in [0, 1000)"},
      {[](v1::Prompt* p) { p->mutable_chat()->add_messages()->set_role("robot\n"); },
       "prompt.chat.messages[0].role must be system, user, assistant or tool, got \"robot\\n\""},
      {[](v1::Prompt* p) {
         p->mutable_chat()->add_messages()->set_role("user");
         v1::ChatMessage* message = p->mutable_chat()->add_messages();
         message->set_role("user");
         message->set_content("\xc3");
       },
       "prompt.chat.messages[1].content must be UTF-8, got an invalid byte at offset 0"},
  };
  for (size_t i = 0; i < cases.size(); ++i) {
    v1::Prompt prompt;
    cases[i].change(&prompt);
    const absl::Status status = CheckPrompt(prompt, kLimits.vocab_size);
    EXPECT_EQ(status.ok(), cases[i].message.empty()) << i << ": " << status;
    if (status.ok()) continue;
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << i;
    EXPECT_THAT(std::string(status.message()), HasSubstr(cases[i].message)) << i;
  }
}

struct OptionsCase {
  std::function<void(v1::GenerateRequest*)> change;
  std::string message;  // empty: fine
};

TEST(CheckOptions, Table) {
  const auto sampling = [](auto set) { return [set](v1::GenerateRequest* r) { set(r->mutable_sampling()); }; };
  const std::vector<OptionsCase> cases = {
      {[](v1::GenerateRequest*) {}, ""},
      {sampling([](v1::SamplingOptions* s) { s->set_temperature(0); }), ""},
      {sampling([](v1::SamplingOptions* s) { s->set_temperature(-0.1f); }),
       "sampling.temperature must be a finite number ≥ 0, got -0.1"},
      {sampling([](v1::SamplingOptions* s) { s->set_temperature(kNan); }), "sampling.temperature"},
      {sampling([](v1::SamplingOptions* s) { s->set_temperature(kInfinity); }), "sampling.temperature"},
      {sampling([](v1::SamplingOptions* s) { s->set_top_p(1); }), ""},
      {sampling([](v1::SamplingOptions* s) { s->set_top_p(0); }), "sampling.top_p must be in (0, 1], got 0"},
      {sampling([](v1::SamplingOptions* s) { s->set_top_p(1.5f); }), "sampling.top_p must be in (0, 1], got 1.5"},
      {sampling([](v1::SamplingOptions* s) { s->set_top_p(kNan); }), "sampling.top_p"},
      {sampling([](v1::SamplingOptions* s) { s->set_top_k(0); }), ""},
      {sampling([](v1::SamplingOptions* s) { s->set_top_k(-1); }), "sampling.top_k must be ≥ 0, got -1"},
      {sampling([](v1::SamplingOptions* s) { s->set_min_p(1); }), ""},
      {sampling([](v1::SamplingOptions* s) { s->set_min_p(-0.5f); }), "sampling.min_p must be in [0, 1], got -0.5"},
      {sampling([](v1::SamplingOptions* s) { s->set_min_p(1.01f); }), "sampling.min_p"},
      {sampling([](v1::SamplingOptions* s) { s->set_min_p(kNan); }), "sampling.min_p"},
      {sampling([](v1::SamplingOptions* s) { s->set_repetition_penalty(0); }), "sampling.repetition_penalty"},
      {sampling([](v1::SamplingOptions* s) { s->set_repetition_penalty(kNan); }), "sampling.repetition_penalty"},
      {sampling([](v1::SamplingOptions* s) { s->set_repetition_penalty(kInfinity); }), "sampling.repetition_penalty"},
      {sampling([](v1::SamplingOptions* s) { s->set_presence_penalty(-2); }), ""},
      {sampling([](v1::SamplingOptions* s) { s->set_presence_penalty(2.5f); }),
       "sampling.presence_penalty must be in [-2, 2], got 2.5"},
      {sampling([](v1::SamplingOptions* s) { s->set_presence_penalty(kNan); }), "sampling.presence_penalty"},
      {sampling([](v1::SamplingOptions* s) { s->set_frequency_penalty(-2.5f); }), "sampling.frequency_penalty"},
      {sampling([](v1::SamplingOptions* s) { s->set_frequency_penalty(kNan); }), "sampling.frequency_penalty"},
      {sampling([](v1::SamplingOptions* s) { (*s->mutable_logit_bias())[999] = -100; }), ""},
      {sampling([](v1::SamplingOptions* s) { (*s->mutable_logit_bias())[1000] = 1; }),
       "sampling.logit_bias key must be a token id in [0, 1000), got 1000"},
      {sampling([](v1::SamplingOptions* s) { (*s->mutable_logit_bias())[-1] = 1; }), "sampling.logit_bias key"},
      {sampling([](v1::SamplingOptions* s) { (*s->mutable_logit_bias())[5] = 101; }),
       "sampling.logit_bias[5] must be in [-100, 100], got 101"},
      {sampling([](v1::SamplingOptions* s) { (*s->mutable_logit_bias())[5] = kNan; }), "sampling.logit_bias[5]"},
      {sampling([](v1::SamplingOptions* s) {
         for (int i = 0; i < kMaxLogitBiases; ++i) (*s->mutable_logit_bias())[i] = 1;
       }),
       "sampling.logit_bias key"},  // so many are fine; the vocabulary here is smaller
      {sampling([](v1::SamplingOptions* s) {
         for (int i = 0; i <= kMaxLogitBiases; ++i) (*s->mutable_logit_bias())[i] = 1;
       }),
       "sampling.logit_bias must be at most 4096 entries, got 4097"},
      {[](v1::GenerateRequest* r) {
         for (int i = 0; i < kMaxStops; ++i) r->add_stop()->set_token_id(i);
       },
       ""},
      {[](v1::GenerateRequest* r) {
         for (int i = 0; i <= kMaxStops; ++i) r->add_stop()->set_token_id(i);
       },
       "stop must be at most 64 conditions, got 65"},
      {[](v1::GenerateRequest* r) { r->add_stop()->set_text("\n\n"); }, ""},
      {[](v1::GenerateRequest* r) { r->add_stop()->set_text(std::string(256, 'x')); }, ""},
      {[](v1::GenerateRequest* r) { r->add_stop()->set_token_id(999); }, ""},
      {[](v1::GenerateRequest* r) { r->add_stop(); }, "stop[0] must set text or token_id, got neither"},
      {[](v1::GenerateRequest* r) {
         r->add_stop()->set_token_id(1);
         v1::StopCondition* stop = r->add_stop();
         stop->set_text("x");
         stop->set_token_id(1);
       },
       "stop[1] must set one of text and token_id, got both"},
      {[](v1::GenerateRequest* r) { r->add_stop()->set_text(""); }, "stop[0].text must be 1 to 256 bytes, got 0"},
      {[](v1::GenerateRequest* r) { r->add_stop()->set_text(std::string(257, 'x')); }, "stop[0].text must be 1 to 256"},
      {[](v1::GenerateRequest* r) { r->add_stop()->set_text("\x80"); }, "stop[0].text must be UTF-8"},
      {[](v1::GenerateRequest* r) { r->add_stop()->set_token_id(1000); }, "stop[0].token_id must be a token id"},
      {[](v1::GenerateRequest* r) { r->set_logprobs(0); }, ""},
      {[](v1::GenerateRequest* r) { r->set_logprobs(20); }, ""},
      {[](v1::GenerateRequest* r) { r->set_logprobs(21); }, "logprobs must be in [0, 20], got 21"},
      {[](v1::GenerateRequest* r) { r->set_logprobs(-1); }, "logprobs must be in [0, 20], got -1"},
      {[](v1::GenerateRequest* r) { r->set_priority(-100); }, ""},
      {[](v1::GenerateRequest* r) { r->set_priority(101); }, "priority must be in [-100, 100], got 101"},
      {[](v1::GenerateRequest* r) { r->set_priority(-101); }, "priority must be in [-100, 100], got -101"},
      {[](v1::GenerateRequest* r) { r->set_max_tokens(1); }, ""},
      {[](v1::GenerateRequest* r) { r->set_max_tokens(0); }, "max_tokens must be > 0, got 0"},
      {[](v1::GenerateRequest* r) { r->set_max_tokens(-5); }, "max_tokens must be > 0, got -5"},
  };
  for (size_t i = 0; i < cases.size(); ++i) {
    v1::GenerateRequest request;
    cases[i].change(&request);
    const absl::Status status = CheckOptions(request, kLimits).status();
    EXPECT_EQ(status.ok(), cases[i].message.empty()) << i << ": " << status;
    if (status.ok()) continue;
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << i;
    EXPECT_THAT(std::string(status.message()), HasSubstr(cases[i].message)) << i;
  }
}

TEST(CheckOptions, FillsInDefaultsAndKeepsWhatIsSet) {
  v1::GenerateRequest request;
  const auto defaults = CheckOptions(request, kLimits);
  ASSERT_TRUE(defaults.ok());
  EXPECT_EQ(defaults->sampling().temperature(), 1);
  EXPECT_EQ(defaults->sampling().top_p(), 1);
  EXPECT_TRUE(defaults->sampling().has_top_k());
  EXPECT_TRUE(defaults->sampling().has_min_p());
  EXPECT_EQ(defaults->sampling().repetition_penalty(), 1);
  EXPECT_TRUE(defaults->sampling().has_presence_penalty());
  EXPECT_TRUE(defaults->sampling().has_frequency_penalty());
  EXPECT_EQ(defaults->logprobs(), -1);

  request.mutable_sampling()->set_temperature(0);
  request.mutable_sampling()->set_seed(7);
  request.set_logprobs(0);
  request.set_ignore_eos(true);
  request.add_stop()->set_token_id(3);
  const auto set = CheckOptions(request, kLimits);
  ASSERT_TRUE(set.ok());
  EXPECT_EQ(set->sampling().temperature(), 0);
  EXPECT_EQ(set->sampling().seed(), 7u);
  EXPECT_EQ(set->logprobs(), 0);
  EXPECT_TRUE(set->ignore_eos());
  EXPECT_EQ(set->stop(0).token_id(), 3);
}

TEST(CheckMaxTokens, AgainstTheLimit) {
  v1::GenerateRequest request;
  EXPECT_EQ(*CheckMaxTokens(request, 100, kLimits), 256);
  EXPECT_EQ(*CheckMaxTokens(request, 4900, kLimits), 100);  // the default gives way
  EXPECT_EQ(*CheckMaxTokens(request, 4999, kLimits), 1);
  EXPECT_FALSE(CheckMaxTokens(request, 5000, kLimits).ok());
  request.set_max_tokens(100);
  EXPECT_EQ(*CheckMaxTokens(request, 4900, kLimits), 100);
  const absl::Status status = CheckMaxTokens(request, 4901, kLimits).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(status.message(),
            "prompt + max_tokens must be at most 5000 tokens, got a prompt of 4901 and max_tokens 100");
  request.set_max_tokens(std::numeric_limits<int64_t>::max());  // must not overflow into "fits"
  EXPECT_FALSE(CheckMaxTokens(request, 100, kLimits).ok());
}

}  // namespace
}  // namespace salamander::router
