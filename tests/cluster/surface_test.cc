// What strangers and operators see of the processes: health, reflection, metrics, and how they take what they should
// never be sent.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <memory>
#include <random>
#include <set>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/base/clock.h"
#include "tests/common/service/probe.h"
#include "tests/common/service/raw_client.h"
#include "tests/testing/golden.h"
#include "tests/testing/process_cluster.h"

namespace salamander {
namespace {

using testing::Golden;
using ::testing::HasSubstr;
using testing::HttpGet;
using testing::IsServing;
using testing::ListServices;
using testing::MetricValue;
using testing::OpenFileDescriptors;
using testing::ProcessCluster;
using testing::RawClient;

class ClusterSurfaceTest : public ::testing::Test {
 protected:
  void SetUp() override {
    cluster_ = ProcessCluster::Start({.model = golden_.folder, .routers = {{.span_tokens = 128}}}).value();
    ExpectServes();
  }
  void ExpectServes() {
    const testing::Answer answer = cluster_->Generate(golden_.Request(false));
    EXPECT_TRUE(answer.status.ok()) << answer.status;
    EXPECT_EQ(answer.tokens, golden_.continuation);
  }

  const Golden golden_{"dense"};
  std::unique_ptr<ProcessCluster> cluster_;
};

const std::map<std::string, std::string>& ServiceOfRole() {
  static const std::map<std::string, std::string> services = {{"router", "salamander.v1.Inference"},
                                                              {"prefill", "salamander.v1.PrefillWorker"},
                                                              {"decode", "salamander.v1.DecodeWorker"}};
  return services;
}

std::string RoleOf(const std::string& name) { return name.substr(0, name.find('-')); }

TEST_F(ClusterSurfaceTest, HealthAndReflectionOnEveryProcess) {
  for (const auto& [name, process] : cluster_->processes()) {
    SCOPED_TRACE(name);
    const std::string& service = ServiceOfRole().at(RoleOf(name));
    EXPECT_TRUE(IsServing(process.address, "").value_or(false));
    EXPECT_TRUE(IsServing(process.address, service).value_or(false));
    EXPECT_THAT(ListServices(process.address).value(), HasSubstr(service));
  }
}

TEST_F(ClusterSurfaceTest, MetricsOnEveryProcess) {
  for (const auto& [name, process] : cluster_->processes()) {
    SCOPED_TRACE(name);
    const std::string scrape = HttpGet(process.metrics_address, "/metrics").value();
    EXPECT_THAT(scrape, HasSubstr("salamander_build_info{role="));
    EXPECT_GT(MetricValue(scrape, "salamander_process_resident_bytes").value(), 0);
    if (RoleOf(name) == "router") {
      EXPECT_THAT(scrape, HasSubstr("salamander_router_requests_total{"));
      EXPECT_THAT(scrape, HasSubstr("salamander_router_ttft_seconds_bucket{"));
    } else {
      EXPECT_THAT(scrape, HasSubstr("salamander_memory_bytes{owner=\"weights\"}"));
    }
  }
}

// Local TCP ports that a process listens on: also the transport's, which nothing else tells.
std::vector<std::string> ListeningAddresses(pid_t pid) {
  std::set<std::string> sockets;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(absl::StrCat("/proc/", pid, "/fd"), error)) {
    const std::string target = std::filesystem::read_symlink(entry.path(), error).string();
    if (target.rfind("socket:[", 0) == 0) sockets.insert(target.substr(8, target.size() - 9));
  }
  std::vector<std::string> addresses;
  for (const char* table : {"tcp", "tcp6"}) {
    std::ifstream lines(absl::StrCat("/proc/", pid, "/net/", table));
    for (std::string line; std::getline(lines, line);) {
      const std::vector<std::string> fields = absl::StrSplit(line, ' ', absl::SkipEmpty());
      if (fields.size() < 10 || fields[3] != "0A" || !sockets.contains(fields[9])) continue;
      const int port = std::stoi(fields[1].substr(fields[1].rfind(':') + 1), nullptr, 16);
      addresses.push_back(absl::StrCat("127.0.0.1:", port));
    }
  }
  return addresses;
}

std::string RandomBytes(std::mt19937& random, size_t count) {
  std::string bytes(count, '\0');
  for (char& byte : bytes) byte = static_cast<char>(random());
  return bytes;
}

// Waits until a process has as few descriptors as before.
void ExpectDescriptorsBack(pid_t pid, int before) {
  const double deadline = RealClock().Now() + 30;
  const std::string text = absl::StrCat(pid);
  while (OpenFileDescriptors(text) > before && RealClock().Now() < deadline) {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
  EXPECT_LE(OpenFileDescriptors(text), before);
}

TEST_F(ClusterSurfaceTest, GarbageOnAnyPortHarmsNothing) {
  std::mt19937 random(5);
  for (const auto& [name, process] : cluster_->processes()) {
    SCOPED_TRACE(name);
    const pid_t pid = process.child->pid();
    const int descriptors = OpenFileDescriptors(absl::StrCat(pid));
    const std::vector<std::string> addresses = ListeningAddresses(pid);
    // gRPC and metrics; workers also have the transport's.
    EXPECT_GE(addresses.size(), RoleOf(name) == "router" ? 2u : 3u);
    for (const std::string& address : addresses) {
      for (int round = 0; round < 100; ++round) {
        absl::StatusOr<RawClient> client = RawClient::Connect(address);
        ASSERT_TRUE(client.ok()) << client.status();
        if (round % 4 != 0) client->Send(RandomBytes(random, 1 + random() % 2000));
        if (round % 3 == 0) client->Reset();
      }
    }
    ExpectDescriptorsBack(pid, descriptors);
  }
  ExpectServes();
}

TEST_F(ClusterSurfaceTest, WorkerWithAnotherModelIsRefusedByName) {
  const Golden other("odd");
  for (const char* role : {"prefill", "decode"}) {
    auto stranger = cluster_->StartStranger(role, absl::StrCat(role, "-9"), other.folder);
    ASSERT_TRUE(stranger.ok()) << stranger.status();
    const absl::StatusOr<int> code = (*stranger)->WaitForExit(30);
    ASSERT_TRUE(code.ok()) << code.status();
    EXPECT_NE(*code, 0);
    EXPECT_THAT((*stranger)->LastWords(), HasSubstr("fingerprint"));
  }
  ExpectServes();
}

TEST_F(ClusterSurfaceTest, WorkerWithATakenNameIsRefused) {
  auto stranger = cluster_->StartStranger("prefill", "prefill-0", golden_.folder);
  ASSERT_TRUE(stranger.ok()) << stranger.status();
  const absl::StatusOr<int> code = (*stranger)->WaitForExit(30);
  ASSERT_TRUE(code.ok()) << code.status();
  EXPECT_NE(*code, 0);
  EXPECT_THAT((*stranger)->LastWords(), HasSubstr("prefill-0"));
  ExpectServes();
}

}  // namespace
}  // namespace salamander
