// Mutual TLS between the real programs, and what they do to who lacks the right certificate.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <string>
#include <thread>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/base/clock.h"
#include "common/service/tls_diagnosis.h"
#include "tests/clients/command.h"
#include "tests/common/service/probe.h"
#include "tests/common/service/raw_client.h"
#include "tests/security/secured_cluster.h"

namespace salamander {
namespace {

using testing::Answer;
using testing::ChildProcess;
using testing::Command;
using ::testing::HasSubstr;
using testing::IsServing;
using testing::TestAuthority;
using testing::TlsFlags;

bool WaitUntil(const std::function<bool()>& condition) {
  const double deadline = RealClock().Now() + 20;
  while (!condition() && RealClock().Now() < deadline) std::this_thread::sleep_for(std::chrono::milliseconds(50));
  return condition();
}

class ClusterTlsTest : public testing::SecuredClusterTest {
 protected:
  // The command's error, with these flags more.
  std::string StatusError(std::vector<std::string> flags) {
    flags.insert(flags.begin(), {"status", "--target=" + cluster_->router_address()});
    Command command(flags);
    EXPECT_EQ(command.Wait(), 1);
    return command.err();
  }
};

TEST_F(ClusterTlsTest, GoldenRequestOverMutualTls) {
  StartCluster({}, {"--health_listen=127.0.0.1:0"});
  const Answer answer = cluster_->Generate(golden_.Request(true));
  EXPECT_EQ(testing::CheckAnswer(golden_, answer, 1e-3), absl::OkStatus());
  EXPECT_GT(answer.finished.spans_size(), 1);
  // Every port of every process, the workers' too, knows only members.
  for (const auto& [name, process] : cluster_->processes()) {
    SCOPED_TRACE(name);
    EXPECT_TRUE(IsServing(process.address, "", {.tls = member_}).value_or(false));
    EXPECT_FALSE(IsServing(process.address, "", {.tls = {.ca = authority_.ca()}}).ok());
    EXPECT_FALSE(IsServing(process.address, "").ok());
    const std::string scrape = testing::HttpGet(process.metrics_address, "/metrics").value();
    EXPECT_GT(testing::MetricValue(scrape, "salamander_process_certificate_expiry_timestamp_seconds").value_or(0), 1e9);
    // Probes see a process all the same.
    EXPECT_TRUE(IsServing(process.health_address, "").value_or(false));
  }
}

TEST_F(ClusterTlsTest, CommandSaysWhatIsWrong) {
  StartCluster();
  const std::string ca = "--tls_ca=" + authority_.ca();
  EXPECT_THAT(StatusError({}), HasSubstr("it speaks TLS (--tls_ca)"));
  EXPECT_THAT(StatusError({ca}), HasSubstr("it takes no client without a certificate (--tls_cert, --tls_key)"));
  EXPECT_THAT(StatusError({"--tls_ca=" + stranger_.ca()}), HasSubstr("its certificate is not by an authority in"));
  service::TlsFiles foreign = stranger_.Issue("foreign");
  foreign.ca = authority_.ca();
  EXPECT_THAT(StatusError(TlsFlags(foreign)), HasSubstr("it refuses the certificate in " + foreign.cert));
  EXPECT_THAT(StatusError(TlsFlags(authority_.Issue("old", {.expired = true}))), HasSubstr("old.pem expired 20"));
  std::vector<std::string> other_name = TlsFlags(member_);
  other_name.push_back("--tls_server_name=elsewhere.example");
  EXPECT_THAT(StatusError(other_name),
              HasSubstr("its certificate is for 127.0.0.1, localhost, not for elsewhere.example (--tls_server_name)"));

  std::vector<std::string> right = TlsFlags(member_);
  right.insert(right.begin(), {"status", "--target=" + cluster_->router_address()});
  Command command(right);
  EXPECT_EQ(command.Wait(), 0) << command.err();
  EXPECT_THAT(command.out(), HasSubstr("prefill-1"));
}

TEST_F(ClusterTlsTest, WorkersWithoutTheRightCertificateDoNotJoin) {
  StartCluster();
  service::TlsFiles foreign = stranger_.Issue("foreign");
  foreign.ca = authority_.ca();
  std::vector<std::string> wrong_roots = TlsFlags(member_);
  wrong_roots.push_back("--tls_ca=" + stranger_.ca());
  const std::pair<std::vector<std::string>, std::string> cases[] = {
      {TlsFlags(foreign), "does not come about: it refuses the certificate in " + foreign.cert},
      {wrong_roots, "does not come about: its certificate is not by an authority in --tls_ca"},
      {{"--tls_server_name=elsewhere.example"}, "not for elsewhere.example (--tls_server_name)"},
  };
  for (const auto& [flags, why] : cases) {
    auto worker = cluster_->StartStranger("prefill", "prefill-9", golden_.folder, flags).value();
    EXPECT_TRUE(WaitUntil([&] { return absl::StrContains(testing::ReadLog(*worker), why); })) << why << "\n"
                                                                                              << worker->LastWords();
  }
  EXPECT_EQ(cluster_->Status().value().workers_size(), 3);
  EXPECT_THAT(testing::ReadLog(*cluster_->process("router-0").child), HasSubstr("Handshake failed"));
  ExpectServes();
}

// Nothing is restarted, and requests go on.
TEST_F(ClusterTlsTest, RenewedCertificatesAreTakenUpWhileServing) {
  StartCluster();
  // Of the same authority, with one more name to tell it by.
  TestAuthority::Renew(authority_.Issue("renewed", {.names = "IP:127.0.0.1,DNS:renewed.example"}), member_);
  service::TlsFiles expecting = member_;
  expecting.server_name = "renewed.example";
  for (const auto& [name, process] : cluster_->processes()) {
    EXPECT_TRUE(WaitUntil([&, address = process.address] {
      return service::ExplainTlsFailure(address, expecting).empty();
    })) << name;
  }
  ExpectServes();
  // A worker that joins now is dialed, and dials, with the new one.
  cluster_->Kill("decode-0");
  ASSERT_EQ(cluster_->Restart("decode-0"), absl::OkStatus());
  ASSERT_EQ(cluster_->WaitReady(), absl::OkStatus());
  ExpectServes();
}

TEST(Exposure, ProgramsDoNotListenBeyondLoopbackUnprotected) {
  const testing::Golden golden("dense");
  const testing::TempFolder folder;
  for (const char* program : {"salamander-router", "salamander-prefill-worker", "salamander-decode-worker"}) {
    auto child = ChildProcess::Start(
        program, {"--model=" + golden.folder, "--routers=127.0.0.1:1", "--listen=0.0.0.0:0"}, folder.file("log"));
    // The router knows no --routers; what counts is that none of them serves.
    ASSERT_TRUE(child.ok());
    EXPECT_FALSE((*child)->ReadLine(20).ok());
    EXPECT_EQ((*child)->WaitForExit(20).value_or(-1), 1);
    if (std::string(program) == "salamander-router") continue;
    EXPECT_THAT((*child)->LastWords(), HasSubstr("--listen=0.0.0.0:0 is not loopback: it needs TLS"));
  }
  auto router = ChildProcess::Start("salamander-router", {"--model=" + golden.folder, "--listen=0.0.0.0:0"},
                                    folder.file("router"));
  EXPECT_EQ((*router)->WaitForExit(20).value_or(-1), 1);
  EXPECT_THAT((*router)->LastWords(), HasSubstr("--listen=0.0.0.0:0 is not loopback: it needs TLS"));
  auto allowed = ChildProcess::Start(
      "salamander-router", {"--model=" + golden.folder, "--listen=0.0.0.0:0", "--allow_insecure"}, folder.file("ok"));
  EXPECT_THAT((*allowed)->ReadLine(20).value_or(""), HasSubstr("serving grpc=0.0.0.0:"));
}

TEST(Exposure, ServeFollowsTheRuleToo) {
  const testing::Golden golden("dense");
  Command refused({"serve", "--model=" + golden.folder, "--listen=0.0.0.0:0"});
  EXPECT_EQ(refused.Wait(), 2);
  EXPECT_THAT(refused.err(), HasSubstr("--listen=0.0.0.0:0 is not loopback: it needs TLS"));

  // With TLS it needs no token: it makes one. Its processes verify each other by the certificate's first name.
  const TestAuthority authority("authority");
  const service::TlsFiles files = authority.Issue("serve", {.names = "DNS:serve.example,DNS:other.example"});
  std::vector<std::string> arguments = TlsFlags(files);
  arguments.insert(arguments.begin(), {"serve", "--model=" + golden.folder, "--listen=0.0.0.0:0", "--prefill_workers=1",
                                       "--memory_bytes=1073741824"});
  Command serve(arguments);
  ASSERT_TRUE(serve.WaitFor("\nready 0.0.0.0:", 60)) << serve.err();
  const std::string port = serve.out().substr(serve.out().find("ready 0.0.0.0:") + 14, 5);
  service::TlsFiles client = files;
  client.server_name = "other.example";
  EXPECT_TRUE(IsServing(absl::StrCat("127.0.0.1:", std::stoi(port)), "", {.tls = client}).value_or(false));
  EXPECT_FALSE(IsServing(absl::StrCat("127.0.0.1:", std::stoi(port)), "").ok());
  serve.Signal(SIGINT);
  EXPECT_EQ(serve.Wait(60), 0) << serve.err();
}

}  // namespace
}  // namespace salamander
