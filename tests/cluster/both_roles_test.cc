// A process with both roles: the oracle's answers, items that never go over a transport, and a drain.
#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "tests/testing/child_process.h"
#include "tests/testing/golden.h"

namespace salamander {
namespace {

using testing::ChildProcess;
using testing::Golden;

constexpr double kStartSeconds = 30;

class BothRolesTest : public ::testing::TestWithParam<std::string> {
 protected:
  // "serving grpc=HOST:PORT metrics=HOST:PORT" → HOST:PORT of gRPC.
  static std::string GrpcAddress(ChildProcess& process) {
    const std::string line = process.ReadLine(kStartSeconds).value();
    const std::vector<std::string> words = absl::StrSplit(line, ' ');
    return words.at(1).substr(std::string("grpc=").size());
  }
  static std::string Log(const std::string& name) { return absl::StrCat(::testing::TempDir(), "/both_roles-", name); }
};

TEST_P(BothRolesTest, AnswersAsTheOracle) {
  const Golden golden(GetParam());
  auto router = ChildProcess::Start("salamander-router",
                                    {absl::StrCat("--model=", golden.folder), "--listen=127.0.0.1:0",
                                     "--metrics_listen=", "--span_tokens=128", "--max_logprobs=1000"},
                                    Log("router"))
                    .value();
  const std::string address = GrpcAddress(*router);
  auto worker = ChildProcess::Start(
                    "salamander-worker",
                    {absl::StrCat("--model=", golden.folder), absl::StrCat("--routers=", address), "--name=both",
                     "--listen=127.0.0.1:0", "--metrics_listen=", "--decode_metrics_listen=", "--ucx_net_devices=lo",
                     absl::StrCat("--memory_bytes=", int64_t{3} << 30)},
                    Log("worker"))
                    .value();
  const auto stub = v1::Inference::NewStub(grpc::CreateChannel(address, grpc::InsecureChannelCredentials()));
  testing::Answer answer;
  // Until both roles are registered, the router says UNAVAILABLE or lets the request wait.
  for (const absl::Time end = absl::Now() + absl::Seconds(kStartSeconds); absl::Now() < end;) {
    answer = testing::Generate(stub.get(), golden.Request(/*all_logprobs=*/true));
    if (!absl::IsUnavailable(answer.status)) break;
    absl::SleepFor(absl::Milliseconds(50));
  }
  ASSERT_TRUE(answer.status.ok()) << answer.status << worker->LastWords();
  const absl::Status right = testing::CheckAnswer(golden, answer, 1e-3);
  EXPECT_TRUE(right.ok()) << right;
  EXPECT_EQ(answer.finished.spans(0).worker(), "both-prefill");
  EXPECT_EQ(answer.finished.decode_worker(), "both-decode");

  worker->Signal(SIGTERM);
  EXPECT_EQ(worker->WaitForExit(kStartSeconds).value_or(-1), 0) << worker->LastWords();
}

INSTANTIATE_TEST_SUITE_P(All, BothRolesTest, ::testing::ValuesIn(testing::kGoldenCases),
                         [](const auto& test) { return test.param; });

}  // namespace
}  // namespace salamander
