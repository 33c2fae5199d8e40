#include "clients/cli/serve_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "clients/cli/local_cluster.h"

namespace salamander::cli {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

TEST(PlanThreads, DividesTheCoresWithAtLeastOneEach) {
  struct Case {
    int64_t cores, prefill_workers, decode_workers, prefill, decode;
  };
  for (const Case& c : {Case{1, 2, 1, 1, 1}, Case{2, 2, 1, 1, 1}, Case{4, 1, 1, 3, 1}, Case{16, 2, 1, 6, 4},
                        Case{64, 4, 2, 12, 8}, Case{8, 16, 4, 1, 1}}) {
    const ThreadPlan plan = PlanThreads(c.cores, c.prefill_workers, c.decode_workers);
    EXPECT_EQ(plan.prefill, c.prefill) << c.cores << " cores";
    EXPECT_EQ(plan.decode, c.decode) << c.cores << " cores";
  }
}

TEST(PlanMemory, WorkersTogetherStayBelow80Percent) {
  EXPECT_EQ(PlanMemory(1000, 1), 800);
  EXPECT_LE(PlanMemory(int64_t{8} << 30, 3) * 3, (int64_t{8} << 30) / 5 * 4);
}

TEST(Plan, WorkersDialTheRouterOverLoopback) {
  const ServeOptions options{.model = "/m", .prefill_workers = 2, .decode_workers = 1};
  const std::vector<ChildPlan> plans = PlanWorkers(options, {.cores = 16, .memory_bytes = 3000}, "127.0.0.1:9");
  ASSERT_EQ(plans.size(), 3U);
  EXPECT_EQ(plans[1].name, "prefill-1");
  EXPECT_EQ(plans[1].program, "salamander-prefill-worker");
  EXPECT_EQ(plans[2].program, "salamander-decode-worker");
  for (const char* arg : {"--model=/m", "--routers=127.0.0.1:9", "--name=prefill-1", "--ucx_net_devices=lo",
                          "--listen=127.0.0.1:0", "--threads=6", "--memory_bytes=800"}) {
    EXPECT_THAT(plans[1].args, Contains(arg));
  }
  EXPECT_THAT(plans[2].args, Contains("--threads=4"));
}

TEST(Plan, OneProcessOnAGpuUnlessWorkersAreCounted) {
  ServeOptions options{.model = "/m", .load_format = "dummy", .device = "cuda:1"};
  const Machine machine = {.cores = 16, .memory_bytes = 3000};
  options.max_batch = 8;
  options.span_tokens = 4096;
  const std::vector<ChildPlan> one = PlanWorkers(options, machine, "r");
  ASSERT_EQ(one.size(), 1U);
  EXPECT_EQ(one[0].program, "salamander-worker");
  for (const char* arg : {"--device=cuda:1", "--load_format=dummy", "--max_batch=8", "--max_span_tokens=4096"}) {
    EXPECT_THAT(one[0].args, Contains(arg));
  }
  EXPECT_THAT(one[0].args, Not(Contains(StartsWith("--memory_bytes"))));
  options.prefill_workers = 1;
  EXPECT_EQ(PlanWorkers(options, machine, "r").size(), 2U);
  options.device = "cpu";
  options.prefill_workers.reset();
  EXPECT_EQ(PlanWorkers(options, machine, "r").size(), 3U);
  options.device = "gpu";
  EXPECT_EQ(CheckServeOptions(options).message(), "--device: device must be cpu, cuda or cuda:N, got \"gpu\"");
}

TEST(Plan, WorkersTakeGpusInTurnAndTheLastDecodes) {
  ServeOptions options{.model = "/m", .device = "cuda:2,cuda:0,cuda:1"};
  const Machine machine = {.cores = 16, .memory_bytes = 3000};
  const std::vector<ChildPlan> plans = PlanWorkers(options, machine, "r");
  ASSERT_EQ(plans.size(), 3U);
  EXPECT_THAT(plans[0].args, Contains("--device=cuda:2"));
  EXPECT_THAT(plans[1].args, Contains("--device=cuda:0"));
  EXPECT_EQ(plans[2].program, "salamander-decode-worker");
  EXPECT_THAT(plans[2].args, Contains("--device=cuda:1"));
  options.prefill_workers = 3;
  EXPECT_THAT(PlanWorkers(options, machine, "r")[3].args, Contains("--device=cuda:2"));
  options.prefill_workers = 1;
  EXPECT_EQ(CheckServeOptions(options).message(),
            "--device must name at most as many devices as there are workers, 2, got 3");
  options.device = "cuda:0,cpu";
  EXPECT_EQ(CheckServeOptions(options).message(), "--device must be of one kind, got \"cuda:0,cpu\"");
}

TEST(Plan, PassesOnWhatWasGivenAndNothingElse) {
  ServeOptions options{.model = "/m"};
  for (const std::string& arg : PlanRouter(options).args) EXPECT_THAT(arg, Not(HasSubstr("span_tokens")));
  options.span_tokens = 384;
  options.codec = "raw";
  options.threads = 3;
  options.memory_bytes = 77;
  options.capture_dir = "/c";
  EXPECT_THAT(PlanRouter(options).args, Contains("--span_tokens=384"));
  EXPECT_THAT(PlanRouter(options).args, Contains("--codec=raw"));
  const std::vector<ChildPlan> plans = PlanWorkers(options, {.cores = 16, .memory_bytes = 3000}, "r");
  EXPECT_THAT(plans[0].args, Contains("--max_span_tokens=384"));
  EXPECT_THAT(plans[0].args, Contains("--threads=3"));
  EXPECT_THAT(plans[0].args, Contains("--memory_bytes=77"));
  EXPECT_THAT(plans[0].args, Not(Contains(StartsWith("--capture_dir"))));
  EXPECT_THAT(plans[2].args, Contains("--capture_dir=/c"));
}

TEST(CheckServeOptions, NamesTheFlag) {
  EXPECT_TRUE(CheckServeOptions({.model = "m"}).ok());
  EXPECT_THAT(std::string(CheckServeOptions({}).message()), HasSubstr("--model"));
  EXPECT_THAT(std::string(CheckServeOptions({.model = "m", .decode_workers = 65}).message()),
              HasSubstr("--decode_workers must be in [1, 64], got 65"));
  EXPECT_THAT(std::string(CheckServeOptions({.model = "m", .grace_seconds = -1}).message()),
              HasSubstr("--grace_seconds"));
}

// Every phase with every event.
TEST(NextPhase, Table) {
  using P = ClusterPhase;
  using E = ClusterEvent;
  const P phases[] = {P::kStartingRouter, P::kStartingWorkers, P::kServing,
                      P::kStoppingRouter, P::kStoppingWorkers, P::kStopped};
  const std::pair<E, std::vector<P>> table[] = {
      {E::kRouterServing,
       {P::kStartingWorkers, P::kStartingWorkers, P::kServing, P::kStoppingRouter, P::kStoppingWorkers, P::kStopped}},
      {E::kAllReady,
       {P::kStartingRouter, P::kServing, P::kServing, P::kStoppingRouter, P::kStoppingWorkers, P::kStopped}},
      {E::kStopAsked,
       {P::kStoppingRouter, P::kStoppingRouter, P::kStoppingRouter, P::kStoppingWorkers, P::kStoppingWorkers,
        P::kStopped}},
      {E::kRouterEnded,
       {P::kStartingRouter, P::kStartingWorkers, P::kServing, P::kStoppingWorkers, P::kStoppingWorkers, P::kStopped}},
      {E::kChildFailed,
       {P::kStoppingWorkers, P::kStoppingWorkers, P::kStoppingWorkers, P::kStoppingWorkers, P::kStoppingWorkers,
        P::kStopped}},
      {E::kAllEnded,
       {P::kStartingRouter, P::kStartingWorkers, P::kServing, P::kStoppingRouter, P::kStopped, P::kStopped}},
  };
  for (const auto& [event, expected] : table) {
    for (size_t i = 0; i < std::size(phases); ++i) {
      EXPECT_EQ(NextPhase(phases[i], event), expected[i])
          << ClusterPhaseName(phases[i]) << " with event " << static_cast<int>(event);
    }
  }
}

}  // namespace
}  // namespace salamander::cli
