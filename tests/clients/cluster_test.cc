// `serve`, `generate`, `status` and `run` with the real programs: what the cluster answers is what one process answers.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <thread>

#include "absl/strings/str_cat.h"
#include "common/base/clock.h"
#include "tests/clients/command.h"
#include "tests/clients/golden_prompt.h"

namespace salamander::testing {
namespace {

using ::testing::HasSubstr;
using Json = nlohmann::json;

// Largest difference of log-probabilities between one process and the cluster: float32 sums in another order.
constexpr double kLogprobTolerance = 1e-3;

class ClusterTest : public ::testing::Test {
 protected:
  ClusterTest()
      : serve_({"serve", "--model=" + golden_.checkpoint, "--listen=127.0.0.1:0", "--prefill_workers=2",
                "--span_tokens=128", "--min_span_tokens=128", "--memory_bytes=1073741824", "--grace_seconds=5"}) {}
  ~ClusterTest() override { std::filesystem::remove(golden_.prompt_file); }

  void SetUp() override {
    ASSERT_TRUE(serve_.WaitFor("\nready ", 60)) << serve_.err();
    const size_t begin = serve_.out().find("\nready ") + 7;
    ASSERT_TRUE(serve_.WaitFor("\n"));
    target_ = "--target=" + serve_.out().substr(begin, serve_.out().find('\n', begin) - begin);
  }
  std::vector<std::string> Options(const std::vector<std::string>& first, const std::vector<std::string>& last) const {
    std::vector<std::string> args = first;
    args.insert(args.end(), {"--prompt_tokens=" + golden_.prompt_file, "--ignore_eos", "--json"});
    args.insert(args.end(), last.begin(), last.end());
    return args;
  }
  static Json Answer(const std::vector<std::string>& args) {
    Command command(args);
    EXPECT_EQ(command.Wait(60), 0) << command.err();
    return Json::parse(command.out(), nullptr, /*allow_exceptions=*/false);
  }
  Json ThroughCluster(const std::vector<std::string>& options) {
    return Answer(Options({"generate", target_}, options));
  }
  Json InOneProcess(const std::vector<std::string>& options) {
    return Answer(Options({"run", "--model=" + golden_.checkpoint, "--threads=1"}, options));
  }

  GoldenPrompt golden_ = LoadGoldenPrompt("sparse");
  Command serve_;
  std::string target_;
};

TEST_F(ClusterTest, AnswersWhatOneProcessAnswers) {
  const std::vector<std::string> greedy = {"--temperature=0", "--logprobs=3",
                                           absl::StrCat("--max_tokens=", golden_.continuation.size())};
  const Json cluster = ThroughCluster(greedy), local = InOneProcess(greedy);
  ASSERT_TRUE(cluster.is_object() && local.is_object());
  EXPECT_EQ(cluster["tokens"], Json(golden_.continuation));
  EXPECT_EQ(cluster["tokens"], local["tokens"]);
  EXPECT_EQ(cluster["finish_reason"], local["finish_reason"]);
  EXPECT_EQ(cluster["usage"], local["usage"]);
  ASSERT_EQ(cluster["logprobs"].size(), local["logprobs"].size());
  for (size_t i = 0; i < local["logprobs"].size(); ++i) {
    EXPECT_NEAR(cluster["logprobs"][i]["logprob"], local["logprobs"][i]["logprob"], kLogprobTolerance) << "token " << i;
    EXPECT_EQ(cluster["logprobs"][i]["top"].size(), 3U);
  }

  const Json& spans = cluster["plan"]["spans"];
  ASSERT_GT(spans.size(), 2U);
  for (size_t i = 0; i < spans.size(); ++i) {
    EXPECT_EQ(spans[i]["begin"], i * 128);
    EXPECT_EQ(spans[i]["worker"], absl::StrCat("prefill-", i % 2));
  }
  const Json& timing = cluster["timing"];
  double parts = 0;
  for (const char* part :
       {"router_queue_s", "prefill_queue_s", "prefill_s", "transfer_exposed_s", "decode_queue_s", "first_step_s"}) {
    EXPECT_GE(timing[part], 0) << part;
    parts += double{timing[part]};
  }
  EXPECT_NEAR(parts, timing["ttft_s"], 1e-6);
}

TEST_F(ClusterTest, SampledTokensDependOnTheSeedOnly) {
  const std::vector<std::string> sampled = {"--temperature=1.5", "--top_p=0.9", "--seed=11", "--max_tokens=24"};
  const Json first = ThroughCluster(sampled);
  ASSERT_TRUE(first.is_object());
  EXPECT_EQ(first["tokens"], ThroughCluster(sampled)["tokens"]);
  EXPECT_EQ(first["tokens"], InOneProcess(sampled)["tokens"]);
}

TEST_F(ClusterTest, RefusesBadRequestsAsOneProcessDoes) {
  for (const char* bad : {"--max_tokens=0", "--temperature=nan", "--top_p=1.5", "--logprobs=-1", "--stop_token=-7"}) {
    for (const std::string program : {"generate", "run"}) {
      const std::string where = program == "run" ? "--model=" + golden_.checkpoint : target_;
      Command command(Options({program, where}, {bad}));
      EXPECT_EQ(command.Wait(), 1) << program << " " << bad;
      EXPECT_THAT(command.err(), HasSubstr("error: INVALID_ARGUMENT: "));
    }
  }
}

TEST_F(ClusterTest, BenchServeReportsWhatItSaw) {
  const std::string file = absl::StrCat(::testing::TempDir(), "load-", getpid(), ".json");
  Command load({"bench", "serve", target_, "--rate=20", "--duration=3", "--input_min=10", "--input_max=600",
                "--output_min=2", "--output_max=8", "--connections=3", "--seed=5", "--slo_ttft=30", "--slo_itl=10",
                "--output=" + file});
  EXPECT_EQ(load.Wait(120), 0) << load.err();
  EXPECT_THAT(load.out(), HasSubstr("time to first token"));
  std::ifstream written(file);
  const Json report = Json::parse(written, nullptr, /*allow_exceptions=*/false);
  std::filesystem::remove(file);
  ASSERT_TRUE(report.is_object());
  const Json& requests = report["requests"];
  EXPECT_GT(requests["sent"], 20);
  EXPECT_EQ(requests["completed"], requests["sent"]) << report["errors"];
  EXPECT_EQ(requests["within_slo"], requests["sent"]);
  EXPECT_EQ(report["samples"].size(), requests["sent"]);
  for (const Json& sample : report["samples"]) {
    EXPECT_GE(sample["output"], 2);
    EXPECT_LE(sample["output"], 8);
    EXPECT_GT(sample["ttft_s"], 0);
    EXPECT_GE(sample["e2e_s"], sample["ttft_s"]);
  }
  EXPECT_EQ(report["ttft_s"]["count"], requests["sent"]);
  EXPECT_GT(report["router"]["cpu_us_per_request"], 0);
}

TEST_F(ClusterTest, BenchServeReplaysATraceAndIsRefusedElsewhere) {
  const std::string trace = absl::StrCat(::testing::TempDir(), "trace-", getpid(), ".jsonl");
  std::ofstream(trace) << "{\"timestamp\": 5, \"input_length\": 300, \"output_length\": 4}\n"
                          "{\"timestamp\": 105, \"input_length\": 3000000, \"output_length\": 4}\n";
  Command load({"bench", "serve", target_, "--trace=" + trace, "--json"});
  EXPECT_EQ(load.Wait(60), 0) << load.err();
  const Json report = Json::parse(load.out(), nullptr, /*allow_exceptions=*/false);
  ASSERT_TRUE(report.is_object()) << load.out();
  EXPECT_EQ(report["requests"]["completed"], 1);
  EXPECT_EQ(report["errors"], (Json{{"INVALID_ARGUMENT", 1}}));
  std::ofstream(trace) << "{\"timestamp\": 5}\n";
  Command bad({"bench", "serve", target_, "--trace=" + trace});
  EXPECT_EQ(bad.Wait(), 2);
  EXPECT_THAT(bad.err(), HasSubstr("line 1: input_length is missing"));
  std::filesystem::remove(trace);
  Command remote({"bench", "serve", "--target=192.0.2.1:7000"});
  EXPECT_EQ(remote.Wait(), 2);
  EXPECT_THAT(remote.err(), HasSubstr("--allow_remote"));
}

TEST_F(ClusterTest, CtrlCGivesTheMemoryBack) {
  const auto free_bytes = [this] {
    const Json status = Answer({"status", target_, "--json"});
    std::map<std::string, int64_t> free;
    for (const Json& worker : status["workers"]) free[worker["name"]] = worker["memory"]["free_bytes"];
    return free;
  };
  const auto before = free_bytes();
  EXPECT_EQ(before.size(), 3U);
  Command endless(
      {"generate", target_, "--prompt_tokens=" + golden_.prompt_file, "--ignore_eos", "--max_tokens=100000"},
      {.terminal = true});
  ASSERT_TRUE(endless.WaitFor("\r\x1b[K"));  // the bar: it runs
  endless.Signal(SIGINT);
  EXPECT_EQ(endless.Wait(), 130);
  // The workers tell the router with their next heartbeats.
  const double until = RealClock().Now() + 20;
  while (free_bytes() != before && RealClock().Now() < until)
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  EXPECT_EQ(free_bytes(), before);
}

TEST_F(ClusterTest, StopsOnCtrlC) {
  serve_.Signal(SIGINT);
  EXPECT_EQ(serve_.Wait(), 0) << serve_.err();
}

TEST_F(ClusterTest, ALostWorkerEndsItWithTheWorkersName) {
  const size_t line = serve_.out().find("decode-0 grpc=");
  ASSERT_NE(line, std::string::npos);
  kill(std::stoi(serve_.out().substr(serve_.out().find("pid=", line) + 4)), SIGKILL);
  EXPECT_EQ(serve_.Wait(), 1);
  EXPECT_THAT(serve_.err(), HasSubstr("decode-0 was ended by signal 9 (Killed)"));
}

}  // namespace
}  // namespace salamander::testing
