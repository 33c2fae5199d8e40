#include "common/engine/generation.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <utility>

#include "tests/common/engine/draw_on_cpu.h"

namespace salamander::engine {
namespace {

// Token n is the n-th letter; 0 is a control token.
class LetterTokenizer : public model::Tokenizer {
 public:
  int64_t vocab_size() const override { return 8; }
  absl::StatusOr<std::vector<int32_t>> EncodeText(std::string_view) const override {
    return absl::UnimplementedError("letters are only decoded");
  }
  absl::StatusOr<std::vector<int32_t>> EncodeChat(const std::vector<model::ChatTurn>&) const override {
    return absl::UnimplementedError("letters are only decoded");
  }
  std::string TokenBytes(int32_t token) const override {
    return token == 0 ? std::string() : std::string(1, static_cast<char>('a' + token - 1));
  }
};

std::vector<float> LogitsFor(int32_t token) {
  std::vector<float> logits(8, 0.0f);
  logits[token] = 10;
  return logits;
}

GeneratedToken Next(Generation& generation, std::vector<float> logits) {
  DrawRequests requests;
  generation.Ask(requests);
  return generation.Take(DrawOnCpu(std::move(logits), requests).draw);
}

GenerationOptions Options(int64_t max_tokens) {
  GenerationOptions options;
  options.sampling.temperature = 0;
  options.max_tokens = max_tokens;
  return options;
}

struct Result {
  std::string text;
  std::vector<int32_t> tokens;
  StopReason reason = StopReason::kNone;
};

// Feeds logits that ask for `tokens` until the generation ends.
Result Generate(const GenerationOptions& options, const std::vector<int32_t>& tokens) {
  const LetterTokenizer tokenizer;
  Generation generation(options, &tokenizer, {0}, 5, {});
  Result result;
  for (const int32_t token : tokens) {
    const GeneratedToken next = Next(generation, LogitsFor(token));
    result.text += next.text;
    result.tokens.push_back(next.token);
    result.reason = next.reason;
    if (next.reason != StopReason::kNone) break;
  }
  EXPECT_EQ(generation.count(), static_cast<int64_t>(result.tokens.size()));
  return result;
}

TEST(Generation, StopsAtMaxTokens) {
  const Result result = Generate(Options(3), {1, 2, 3, 4});
  EXPECT_EQ(result.text, "abc");
  EXPECT_EQ(result.reason, StopReason::kLength);
  EXPECT_THAT(result.tokens, testing::ElementsAre(1, 2, 3));
}

TEST(Generation, EndOfTextIsReturnedWithoutText) {
  const Result result = Generate(Options(10), {1, 2, 0, 3});
  EXPECT_EQ(result.text, "ab");
  EXPECT_EQ(result.reason, StopReason::kStop);
  EXPECT_THAT(result.tokens, testing::ElementsAre(1, 2, 0));
}

TEST(Generation, EndOfTextAsTheLastAllowedTokenIsAStop) {
  EXPECT_EQ(Generate(Options(2), {1, 0}).reason, StopReason::kStop);
}

TEST(Generation, IgnoreEosGoesOn) {
  GenerationOptions options = Options(4);
  options.ignore_eos = true;
  const Result result = Generate(options, {1, 0, 2, 3});
  EXPECT_EQ(result.text, "abc");
  EXPECT_EQ(result.reason, StopReason::kLength);
}

TEST(Generation, StopTokenIdsStopEvenWhenEosIsIgnored) {
  GenerationOptions options = Options(10);
  options.ignore_eos = true;
  options.stop_token_ids = {3};
  const Result result = Generate(options, {1, 0, 3, 2});
  EXPECT_EQ(result.text, "a");
  EXPECT_EQ(result.reason, StopReason::kStop);
}

TEST(Generation, StopTextIsSwallowedAcrossTokens) {
  GenerationOptions options = Options(10);
  options.stop_texts = {"cd"};
  const Result result = Generate(options, {1, 2, 3, 4, 5});
  EXPECT_EQ(result.text, "ab");
  EXPECT_EQ(result.reason, StopReason::kStop);
  EXPECT_EQ(result.tokens.size(), 4u);
}

TEST(Generation, HeldBackTextComesOutAtTheEnd) {
  GenerationOptions options = Options(3);
  options.stop_texts = {"cd"};
  EXPECT_EQ(Generate(options, {1, 2, 3}).text, "abc");    // by length
  EXPECT_EQ(Generate(Options(9), {1, 3, 0}).text, "ac");  // by end of text
}

TEST(Generation, PenaltiesSeeOutputAndPrompt) {
  GenerationOptions options = Options(10);
  options.sampling.presence_penalty = 2;
  const LetterTokenizer tokenizer;
  Generation presence(options, &tokenizer, {0}, 2, {1, 1});
  const std::vector<float> logits = {0, 3, 2, 0, 0, 0, 0, 0};
  EXPECT_EQ(Next(presence, logits).token, 1);  // The prompt does not count.
  EXPECT_EQ(Next(presence, logits).token, 2);

  options.sampling.presence_penalty = 0;
  options.sampling.repetition_penalty = 2;
  Generation repetition(options, &tokenizer, {0}, 2, {1, 1});
  EXPECT_EQ(Next(repetition, logits).token, 2);  // The prompt counts.
}

TEST(Generation, DrawsBySeedAndPositionInTheSequence) {
  GenerationOptions options = Options(50);
  options.sampling.temperature = 1;
  options.sampling.seed = 11;
  options.ignore_eos = true;
  const std::vector<float> flat(8, 0.0f);
  Generation whole(options, nullptr, {0}, 10, {});
  std::vector<int32_t> tokens;
  for (int i = 0; i < 30; ++i) tokens.push_back(Next(whole, flat).token);
  // Taken up elsewhere after 12 tokens, which are part of the prompt now.
  Generation moved(options, nullptr, {0}, 22, {});
  for (int i = 12; i < 30; ++i) EXPECT_EQ(Next(moved, flat).token, tokens[i]) << i;
}

TEST(Generation, LogprobsWhenAskedFor) {
  Generation silent(Options(1), nullptr, {0}, 1, {});
  EXPECT_FALSE(Next(silent, LogitsFor(3)).logprobs.has_value());
  GenerationOptions options = Options(1);
  options.logprobs = 2;
  Generation telling(options, nullptr, {0}, 1, {});
  const GeneratedToken token = Next(telling, LogitsFor(3));
  ASSERT_TRUE(token.logprobs.has_value());
  EXPECT_EQ(token.logprobs->top.size(), 2u);
  EXPECT_EQ(token.logprobs->top[0].token, 3);
  EXPECT_EQ(token.logprobs->top[0].logprob, token.logprobs->chosen);
}

}  // namespace
}  // namespace salamander::engine
