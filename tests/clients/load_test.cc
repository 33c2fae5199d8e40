// `bench serve` without a cluster: arrivals, traces, quantiles, and runs against a scripted router.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <thread>

#include "absl/strings/str_cat.h"
#include "clients/cli/load/arrivals.h"
#include "clients/cli/load/load_report.h"
#include "clients/cli/load/load_run.h"
#include "clients/cli/load/quantiles.h"
#include "tests/clients/fake_router.h"

namespace salamander::cli {
namespace {

using ::testing::HasSubstr;

TEST(PoissonArrivals, GapsAreExponentialAndLengthsLogUniform) {
  const PoissonOptions options{
      .rate = 50, .seconds = 400, .most = 1000000, .input = {100, 102400}, .output = {16, 16}, .seed = 3};
  const std::vector<Arrival> arrivals = PoissonArrivals(options);
  const auto count = static_cast<double>(arrivals.size());
  // 20,000 expected; the deviation of a Poisson number is its root, 141.
  EXPECT_NEAR(count, 20000, 5 * 141);
  double last = 0, longer_than_mean = 0, below_middle = 0;
  for (const Arrival& arrival : arrivals) {
    EXPECT_GE(arrival.seconds, last);
    EXPECT_LT(arrival.seconds, 400);
    longer_than_mean += arrival.seconds - last > 1.0 / 50;
    last = arrival.seconds;
    EXPECT_GE(arrival.input_tokens, 100);
    EXPECT_LE(arrival.input_tokens, 102400);
    below_middle += arrival.input_tokens < 3200;  // 5 of the 10 octaves
    EXPECT_EQ(arrival.output_tokens, 16);
  }
  EXPECT_NEAR(longer_than_mean / count, std::exp(-1), 0.02);
  EXPECT_NEAR(below_middle / count, 0.5, 0.02);
}

TEST(PoissonArrivals, TheSeedDecidesAndTheCountIsBounded) {
  PoissonOptions options{.rate = 10, .seconds = 1e9, .most = 7, .input = {1, 1000}, .output = {1, 9}, .seed = 1};
  const auto first = PoissonArrivals(options), again = PoissonArrivals(options);
  options.seed = 2;
  const auto other = PoissonArrivals(options);
  ASSERT_EQ(first.size(), 7U);
  for (size_t i = 0; i < first.size(); ++i) {
    EXPECT_EQ(first[i].seconds, again[i].seconds);
    EXPECT_EQ(first[i].input_tokens, again[i].input_tokens);
    EXPECT_NE(first[i].seconds, other[i].seconds);
  }
}

TEST(ParseTrace, ReadsMooncakesForm) {
  const std::string trace =
      "{\"timestamp\": 27482, \"input_length\": 6955, \"output_length\": 52, \"hash_ids\": [46, 47]}\n"
      "\n"
      "{\"timestamp\": 30535, \"input_length\": 6472, \"output_length\": 26, \"hash_ids\": []}\r\n"
      "{\"timestamp\": 28482, \"input_length\": 1, \"output_length\": 1}";
  const auto arrivals = ParseTrace(trace, {.speed = 2, .seconds = 100, .most = 100});
  ASSERT_TRUE(arrivals.ok()) << arrivals.status();
  ASSERT_EQ(arrivals->size(), 3U);
  EXPECT_EQ((*arrivals)[0].seconds, 0);
  EXPECT_EQ((*arrivals)[0].input_tokens, 6955);
  EXPECT_EQ((*arrivals)[0].output_tokens, 52);
  EXPECT_EQ((*arrivals)[1].seconds, 0.5) << "in order of time, twice as fast";
  EXPECT_NEAR((*arrivals)[2].seconds, 3.053 / 2, 1e-12);
  EXPECT_EQ(ParseTrace(trace, {.speed = 1, .seconds = 2, .most = 100})->size(), 2U);
  EXPECT_EQ(ParseTrace(trace, {.speed = 1, .seconds = 100, .most = 1})->size(), 1U);
}

TEST(ParseTrace, NamesTheBadLine) {
  const std::string good = "{\"timestamp\": 0, \"input_length\": 1, \"output_length\": 1}\n";
  const struct {
    const char* line;
    const char* text;
  } kBad[] = {
      {"{\"timestamp\": 0", "not a JSON object"},
      {"[1, 2]", "not a JSON object"},
      {"{\"input_length\": 1, \"output_length\": 1}", "timestamp is missing"},
      {"{\"timestamp\": \"0\", \"input_length\": 1, \"output_length\": 1}", "timestamp is no number"},
      {"{\"timestamp\": -1, \"input_length\": 1, \"output_length\": 1}", "timestamp must be at least 0"},
      {"{\"timestamp\": 0, \"input_length\": 0, \"output_length\": 1}", "input_length must be at least 1, got 0"},
      {"{\"timestamp\": 0, \"input_length\": 1.5, \"output_length\": 1}", "input_length must be a whole number"},
      {"{\"timestamp\": 0, \"input_length\": 1, \"output_length\": 1e12}", "output_length must be a whole number"},
      {"{\"timestamp\": 0, \"input_length\": 1}", "output_length is missing"},
  };
  for (const auto& bad : kBad) {
    const auto arrivals = ParseTrace(absl::StrCat(good, "\n", bad.line, "\n", good), {.seconds = 1, .most = 9});
    ASSERT_FALSE(arrivals.ok()) << bad.line;
    EXPECT_THAT(std::string(arrivals.status().message()), ::testing::StartsWith(absl::StrCat("line 3: ", bad.text)));
  }
  EXPECT_THAT(std::string(ParseTrace("\n", {}).status().message()), HasSubstr("no request"));
}

TEST(Quantiles, AreMembersOfTheSample) {
  EXPECT_EQ(QuantilesOf({}).count, 0);
  EXPECT_EQ(QuantilesOf({5}).p50, 5);
  EXPECT_EQ(QuantilesOf({5}).p99, 5);
  std::vector<double> values;
  for (int i = 100; i > 0; --i) values.push_back(i);
  const Quantiles q = QuantilesOf(values);
  EXPECT_EQ(q.count, 100);
  EXPECT_EQ(q.mean, 50.5);
  EXPECT_EQ(q.p50, 50);
  EXPECT_EQ(q.p90, 90);
  EXPECT_EQ(q.p99, 99);
  EXPECT_EQ(q.max, 100);
  EXPECT_EQ(QuantilesOf({1, 2, 3, 4, 5, 6, 7, 8, 9, 10}).p90, 9);
}

class LoadRunTest : public ::testing::Test {
 protected:
  void Connect(int count) {
    for (int i = 0; i < count; ++i) {
      absl::StatusOr<client::Client> client = client::Client::Connect(router_.address(), {.own_connection = true});
      ASSERT_TRUE(client.ok()) << client.status();
      clients_.push_back(*std::move(client));
    }
  }
  // `input_tokens` says what the router does: 1 answers at once, 2 refuses, 3 waits for the client's end.
  void Script() {
    router_.set_script([](grpc::ServerContext& context, const v1::GenerateRequest& request,
                          testing::FakeRouter::Writer& writer) -> grpc::Status {
      const int kind = request.prompt().tokens().ids_size();
      if (kind == 2) return grpc::Status(grpc::StatusCode::RESOURCE_EXHAUSTED, "the queue is full");
      while (kind == 3 && !context.IsCancelled()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
      if (kind == 3) return grpc::Status::CANCELLED;
      testing::WriteSampleEvents(writer);
      return grpc::Status::OK;
    });
  }

  testing::FakeRouter router_;
  std::vector<client::Client> clients_;
};

TEST_F(LoadRunTest, ArrivalsDoNotWaitForThoseBefore) {
  Script();
  Connect(2);
  LoadRun run(&clients_, {.vocab_size = 100, .drain = absl::Seconds(0.2)});
  const LoadResult result = run.Run({{0, 3, 1}, {0.05, 1, 2}, {0.1, 2, 1}});
  ASSERT_EQ(result.requests.size(), 3U);
  EXPECT_EQ(result.requests[0].code, absl::StatusCode::kCancelled) << "after the drain";
  EXPECT_GE(result.requests[0].end, 0.3);
  const RequestRecord& good = result.requests[1];
  EXPECT_TRUE(good.completed());
  EXPECT_EQ(good.tokens, 2);
  EXPECT_GE(good.sent, 0.05);
  EXPECT_GT(good.ttft(), 0);
  EXPECT_LT(good.end, 0.3);
  EXPECT_EQ(result.inter_token_gaps.size(), 1U);
  EXPECT_EQ(result.requests[2].code, absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(result.a_message.at(absl::StatusCode::kResourceExhausted), "the queue is full");

  const auto report = LoadReport(result, {.ttft = 10, .itl = 10}, {}, {{"cpu_s", 0.003}});
  EXPECT_EQ(report["requests"],
            (nlohmann::ordered_json{{"arrived", 3}, {"sent", 3}, {"completed", 1}, {"within_slo", 1}}));
  EXPECT_EQ(report["errors"], (nlohmann::ordered_json{{"CANCELLED", 1}, {"RESOURCE_EXHAUSTED", 1}}));
  EXPECT_EQ(report["refused_s"]["count"], 1);
  EXPECT_NEAR(report["router"]["cpu_us_per_request"].get<double>(), 1000, 1e-6);
  EXPECT_EQ(report["samples"].size(), 3U);
  EXPECT_THAT(LoadSummary(report), HasSubstr("RESOURCE_EXHAUSTED: 1, such as: the queue is full"));
  EXPECT_EQ(LoadReport(result, {.ttft = 1e-9, .itl = 10}, {}, {})["requests"]["within_slo"], 0);
}

TEST_F(LoadRunTest, DropsWhatIsTooMuchForTheClient) {
  Script();
  Connect(1);
  LoadRun run(&clients_, {.vocab_size = 100, .drain = absl::Milliseconds(1), .most_outstanding = 2});
  const LoadResult result = run.Run({{0, 3, 1}, {0, 3, 1}, {0, 1, 1}});
  EXPECT_TRUE(result.requests[2].dropped);
  EXPECT_FALSE(result.requests[2].completed());
  EXPECT_EQ(LoadReport(result, {}, {}, {})["errors"]["DROPPED_BY_CLIENT"], 1);
}

TEST_F(LoadRunTest, StopEndsItEarly) {
  Script();
  Connect(1);
  LoadRun run(&clients_, {.vocab_size = 100});
  std::thread stopper([&run] {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    run.Stop();
  });
  const LoadResult result = run.Run({{0, 3, 1}, {1000, 1, 1}});
  stopper.join();
  ASSERT_EQ(result.requests.size(), 1U);
  EXPECT_EQ(result.requests[0].code, absl::StatusCode::kCancelled);
  EXPECT_LT(result.seconds, 30);
}

TEST(RandomPrompt, IsInTheVocabularyAndTheSeeds) {
  const auto ids = RandomPrompt(1000, 7, 5);
  EXPECT_EQ(ids, RandomPrompt(1000, 7, 5));
  EXPECT_NE(ids, RandomPrompt(1000, 7, 6));
  EXPECT_THAT(ids, ::testing::Each(::testing::AllOf(::testing::Ge(0), ::testing::Lt(7))));
}

}  // namespace
}  // namespace salamander::cli
