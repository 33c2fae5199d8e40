#include "clients/cli/answer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "clients/cli/status_report.h"

namespace salamander::cli {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

client::Completion SampleCompletion() {
  client::Completion completion{.tokens = {1, 2}, .text = "caf\xC3\xA9"};
  completion.logprobs = {{.token = 1, .logprob = -0.5F, .top = {{3, -0.25F}}}, {.token = 2, .logprob = -1}};
  completion.finished = {.reason = client::FinishReason::kStop,
                         .usage = {2048, 2},
                         .timing = {.ttft = 3, .prefill = 2, .tokens_per_second = 4},
                         .spans = {{0, 1024, "a"}, {1024, 2048, "b"}}};
  return completion;
}

// The contract, key by key and in order; nothing more.
TEST(CompletionToJson, HasExactlyThePromisedKeys) {
  EXPECT_EQ(CompletionToJson(SampleCompletion()),
            "{\"tokens\":[1,2],\"text\":\"caf\xC3\xA9\",\"finish_reason\":\"stop\","
            "\"logprobs\":[{\"token\":1,\"logprob\":-0.5,\"top\":[{\"token\":3,\"logprob\":-0.25}]},"
            "{\"token\":2,\"logprob\":-1.0,\"top\":[]}],"
            "\"usage\":{\"prompt_tokens\":2048,\"completion_tokens\":2},"
            "\"timing\":{\"ttft_s\":3.0,\"router_queue_s\":0.0,\"prefill_queue_s\":0.0,\"prefill_s\":2.0,"
            "\"transfer_exposed_s\":0.0,\"decode_queue_s\":0.0,\"first_step_s\":0.0,\"tokens_per_s\":4.0},"
            "\"plan\":{\"spans\":[{\"begin\":0,\"end\":1024,\"worker\":\"a\"},"
            "{\"begin\":1024,\"end\":2048,\"worker\":\"b\"}]}}");
}

TEST(CompletionToJson, EmptyAnswerStillHasArrays) {
  const auto parsed = nlohmann::json::parse(CompletionToJson({}));
  for (const char* key : {"tokens", "logprobs"}) {
    EXPECT_TRUE(parsed[key].is_array() && parsed[key].empty()) << key;
  }
  EXPECT_TRUE(parsed["plan"]["spans"].is_array());
}

TEST(Summary, NamesEveryPartOfTheTimeToFirstToken) {
  const std::string summary = Summary(SampleCompletion().finished);
  EXPECT_THAT(summary, HasSubstr("time to first token 3.000 s = router queue 0.000 + prefill queue 0.000 + "
                                 "prefill 2.000 + exposed transfer 0.000 + decode queue 0.000 + first step 0.000"));
  EXPECT_THAT(summary, HasSubstr("2,048 prompt tokens in 2 spans on 2 workers, 1,024 tokens/s"));
  EXPECT_THAT(summary, HasSubstr("2 completion tokens, 4.0 tokens/s; finish reason stop"));
}

TEST(RenderProgress, ShowsTokensRateAndTimeLeft) {
  const client::Progress half{
      .prompt_tokens = 100000, .prefilled_tokens = 50000, .tokens_per_second = 5000, .seconds_left = 10};
  const std::string line = RenderProgress(half, 120);
  EXPECT_THAT(line, HasSubstr("[####################....................]"));
  EXPECT_THAT(line, HasSubstr(" 50%  50,000 / 100,000 tokens  5,000 tokens/s  0:10 left"));
}

TEST(RenderProgress, FitsAnyWidth) {
  const client::Progress progress{
      .prompt_tokens = 1000000, .prefilled_tokens = 999999, .tokens_per_second = 1, .seconds_left = 1};
  for (int columns = 0; columns < 200; ++columns) {
    EXPECT_LE(RenderProgress(progress, columns).size(), static_cast<size_t>(columns));
  }
}

TEST(RenderProgress, SaysNothingOfAnUnknownRate) {
  EXPECT_THAT(RenderProgress({.prompt_tokens = 10, .prefilled_tokens = 0}, 80), Not(HasSubstr("left")));
}

TEST(Numbers, ForPeople) {
  EXPECT_EQ(WithThousands(0), "0");
  EXPECT_EQ(WithThousands(999), "999");
  EXPECT_EQ(WithThousands(1048576), "1,048,576");
  EXPECT_EQ(WithThousands(-123456), "-123,456");
  EXPECT_EQ(Clock(7.4), "0:07");
  EXPECT_EQ(Clock(3723), "1:02:03");
  EXPECT_EQ(Clock(-1), "0:00");
  EXPECT_EQ(HumanBytes(512), "512 B");
  EXPECT_EQ(HumanBytes(1536), "1.5 KiB");
  EXPECT_EQ(HumanBytes(8.0 * (1LL << 30)), "8.0 GiB");
}

client::ClusterStatus SampleStatus() {
  client::WorkerStatus worker{.role = client::WorkerRole::kDecode, .name = "decode-0", .instance_id = 0xabc};
  worker.ready = true;
  worker.memory_capacity_bytes = 4096;
  worker.memory_free_bytes = 1024;
  worker.memory_by_owner = {{"pages", 1024}, {"weights", 2048}, {"states", 0}};
  worker.links = {{.peer = "prefill-0", .connected = false, .error = "refused"}};
  return {.router_version = "1.0", .ready = true, .workers = {worker}};
}

TEST(StatusTable, ShowsWorkersMemoryAndLinks) {
  const std::string table = StatusTable(SampleStatus());
  EXPECT_THAT(table, HasSubstr("router 1.0: ready"));
  EXPECT_THAT(table, HasSubstr("decode-0  decode  yes"));
  EXPECT_THAT(table, HasSubstr("4.0 KiB   1.0 KiB  weights 2.0 KiB, pages 1.0 KiB"));
  EXPECT_THAT(table, HasSubstr("prefill-0  not connected: refused"));
  EXPECT_THAT(StatusTable({}), HasSubstr("no workers"));
}

TEST(StatusToJson, HasTheLedgerByOwner) {
  const auto parsed = nlohmann::json::parse(StatusToJson(SampleStatus()));
  EXPECT_EQ(parsed["ready"], true);
  const auto& worker = parsed["workers"][0];
  EXPECT_EQ(worker["instance"], "0000000000000abc");
  EXPECT_EQ(worker["memory"]["free_bytes"], 1024);
  EXPECT_EQ(worker["memory"]["owners"]["weights"], 2048);
  EXPECT_EQ(worker["links"][0]["error"], "refused");
}

}  // namespace
}  // namespace salamander::cli
