// `salamander run`: the oracle's tokens, the router's answers to bad input, and its exit codes.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "tests/clients/command.h"
#include "tests/clients/golden_prompt.h"

namespace salamander::testing {
namespace {

using ::testing::HasSubstr;

class RunTest : public ::testing::Test {
 protected:
  std::vector<std::string> Args(const std::vector<std::string>& more) {
    std::vector<std::string> args = {"run", "--model=" + golden_.checkpoint, "--prompt_tokens=" + golden_.prompt_file,
                                     "--threads=2"};
    args.insert(args.end(), more.begin(), more.end());
    return args;
  }
  ~RunTest() override { std::filesystem::remove(golden_.prompt_file); }
  GoldenPrompt golden_ = LoadGoldenPrompt("dense");
};

TEST(RunGolden, GivesTheOraclesTokensForAnySpanLength) {
  for (const char* name : {"dense", "sparse", "crossing", "wide", "odd"}) {
    const GoldenPrompt golden = LoadGoldenPrompt(name);
    for (int span_tokens : {128, 384, 8192}) {
      Command run({"run", "--model=" + golden.checkpoint, "--prompt_tokens=" + golden.prompt_file, "--threads=2",
                   absl::StrCat("--span_tokens=", span_tokens), "--temperature=0", "--ignore_eos", "--logprobs=1",
                   absl::StrCat("--max_tokens=", golden.continuation.size()), "--json"});
      ASSERT_EQ(run.Wait(), 0) << run.err();
      const auto answer = nlohmann::json::parse(run.out(), nullptr, false);
      ASSERT_TRUE(answer.is_object()) << run.out();
      EXPECT_EQ(answer["tokens"], nlohmann::json(golden.continuation)) << name << " in spans of " << span_tokens;
      EXPECT_EQ(answer["finish_reason"], "length");
      EXPECT_EQ(answer["usage"]["completion_tokens"], golden.continuation.size());
      EXPECT_EQ(answer["logprobs"].size(), golden.continuation.size());
      // Greedy: what was taken is what was likeliest.
      EXPECT_EQ(answer["logprobs"][0]["top"][0]["token"], answer["tokens"][0]);
      const int64_t prompt_tokens = answer["usage"]["prompt_tokens"];
      const auto& spans = answer["plan"]["spans"];
      EXPECT_EQ(static_cast<int64_t>(spans.size()), (prompt_tokens + span_tokens - 1) / span_tokens);
      EXPECT_EQ(spans.back()["end"], prompt_tokens);
      const auto& timing = answer["timing"];
      EXPECT_DOUBLE_EQ(timing["ttft_s"], double{timing["prefill_s"]} + double{timing["first_step_s"]});
    }
    std::filesystem::remove(golden.prompt_file);
  }
}

TEST_F(RunTest, SameSeedSameTokens) {
  std::vector<nlohmann::json> tokens;
  for (const char* seed : {"--seed=7", "--seed=7", "--seed=8"}) {
    Command run(Args({seed, "--temperature=2", "--max_tokens=24", "--ignore_eos", "--json"}));
    ASSERT_EQ(run.Wait(), 0) << run.err();
    tokens.push_back(nlohmann::json::parse(run.out())["tokens"]);
  }
  EXPECT_EQ(tokens[0], tokens[1]);
  EXPECT_NE(tokens[0], tokens[2]);
}

TEST_F(RunTest, BadRequestsNameFieldValueAndLimit) {
  const std::pair<std::vector<std::string>, const char*> cases[] = {
      {{"--max_tokens=0"}, "max_tokens must be ≥ 1, got 0"},
      {{"--max_tokens=9000000"}, "prompt + max_tokens must be at most 4194304 tokens"},
      {{"--temperature=-1"}, "temperature"},
      {{"--temperature=nan"}, "temperature"},
      {{"--top_p=0"}, "top_p"},
      {{"--logprobs=21"}, "logprobs must be in [0, 20], got 21"},
      {{"--stop_token=-1"}, "stop[0].token_id must be a token id in [0, "},
      {{"--span_tokens=100"}, "span_tokens must be a positive multiple of 128, got 100"},
      {{"--memory_bytes=1000"}, "RESOURCE_EXHAUSTED"},
  };
  for (const auto& [args, message] : cases) {
    Command run(Args(args));
    EXPECT_EQ(run.Wait(), 1) << message;
    EXPECT_THAT(run.err(), HasSubstr(message));
    EXPECT_EQ(run.out(), "");
  }
}

TEST_F(RunTest, BadPromptsNameTheToken) {
  for (const auto& [json, message] : {std::pair("[1,-2]", "prompt.tokens.ids[1] must be a token id in [0, "),
                                      std::pair("[9999999]", "got 9999999"), std::pair("[]", "must not be empty")}) {
    std::ofstream(golden_.prompt_file) << json;
    Command run(Args({}));
    EXPECT_EQ(run.Wait(), 1);
    EXPECT_THAT(run.err(), HasSubstr("error: INVALID_ARGUMENT: "));
    EXPECT_THAT(run.err(), HasSubstr(message));
  }
}

TEST_F(RunTest, TextNeedsATokenizer) {
  Command run({"run", "--model=" + golden_.checkpoint, "--prompt=hi"});
  EXPECT_EQ(run.Wait(), 1);
  EXPECT_THAT(run.err(), HasSubstr("prompt must be tokens, got text: model dense has no tokenizer"));
}

TEST_F(RunTest, CtrlCAndDeadlineEndIt) {
  Command run(Args({"--max_tokens=1000000", "--ignore_eos", "--span_tokens=128"}), {.terminal = true});
  ASSERT_TRUE(run.WaitFor("prefill ["));
  run.Signal(SIGINT);
  EXPECT_EQ(run.Wait(), 130);
  Command late(Args({"--max_tokens=1000000", "--ignore_eos", "--deadline=0.2"}));
  EXPECT_EQ(late.Wait(), 1);
  EXPECT_THAT(late.err(), HasSubstr("error: DEADLINE_EXCEEDED: not done after 200ms"));
}

}  // namespace
}  // namespace salamander::testing
