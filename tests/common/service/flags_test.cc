#include "common/service/flags.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <string>
#include <vector>

#include "absl/flags/reflection.h"
#include "tests/testing/certificates.h"
#include "tests/testing/temp_folder.h"

namespace salamander::service {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

class FlagsTest : public ::testing::Test {
 protected:
  absl::Status Parse(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), "program");
    std::vector<char*> argv;
    for (std::string& argument : arguments) argv.push_back(argument.data());
    return ParseFlags(static_cast<int>(argv.size()), argv.data(), "program: for tests.");
  }
  absl::FlagSaver saver_;  // every test starts from the defaults
};

TEST_F(FlagsTest, DefaultsAreThoseOfTheOptions) {
  ASSERT_TRUE(Parse({"--model=/m", "--routers=a:1"}).ok());
  const absl::StatusOr<WorkerOptions> options = WorkerOptionsFromFlags();
  ASSERT_TRUE(options.ok()) << options.status();
  const WorkerOptions defaults;
  EXPECT_EQ(options->server.listen, defaults.server.listen);
  EXPECT_EQ(options->server.metrics_listen, defaults.server.metrics_listen);
  EXPECT_EQ(options->threads, defaults.threads);
  EXPECT_EQ(options->memory_bytes, defaults.memory_bytes);
  EXPECT_EQ(options->transfer_buffer_bytes, defaults.transfer_buffer_bytes);
  EXPECT_EQ(options->missing_item_seconds, defaults.missing_item_seconds);
}

TEST_F(FlagsTest, EveryFlagReachesItsOption) {
  ASSERT_TRUE(Parse({"--model=/m", "--routers=a:1,b:2", "--name=n", "--advertise=c:3", "--threads=7",
                     "--memory_bytes=1000", "--transfer_buffer_bytes=20000000", "--min_link_bytes_per_second=5",
                     "--missing_item_seconds=0.5", "--ucx_transports=tcp", "--ucx_net_devices=lo", "--capture_dir=/c",
                     "--listen=0.0.0.0:1", "--metrics_listen=", "--health_listen=0.0.0.0:2", "--allow_insecure",
                     "--tls_client_auth=none", "--tls_server_name=n.example", "--reload_seconds=3"})
                  .ok());
  const absl::StatusOr<WorkerOptions> options = WorkerOptionsFromFlags();
  ASSERT_TRUE(options.ok()) << options.status();
  EXPECT_EQ(options->model, "/m");
  EXPECT_THAT(options->routers, ElementsAre("a:1", "b:2"));
  EXPECT_EQ(options->name, "n");
  EXPECT_EQ(options->advertise, "c:3");
  EXPECT_EQ(options->threads, 7);
  EXPECT_EQ(options->memory_bytes, 1000);
  EXPECT_EQ(options->transfer_buffer_bytes, 20000000);
  EXPECT_EQ(options->min_link_bytes_per_second, 5);
  EXPECT_EQ(options->missing_item_seconds, 0.5);
  EXPECT_EQ(options->ucx_transports, "tcp");
  EXPECT_EQ(options->ucx_net_devices, "lo");
  EXPECT_EQ(options->capture_dir, "/c");
  EXPECT_EQ(options->server.listen, "0.0.0.0:1");
  EXPECT_EQ(options->server.metrics_listen, "");
  EXPECT_EQ(options->server.health_listen, "0.0.0.0:2");
  EXPECT_TRUE(options->server.security.allow_insecure);
  EXPECT_FALSE(options->server.security.tls.client_certificates);
  EXPECT_EQ(options->server.security.tls.server_name, "n.example");
  EXPECT_EQ(options->server.security.tls.reload_seconds, 3);
}

TEST_F(FlagsTest, ClusterTokenComesFromItsFileWithoutTheNewline) {
  const testing::TempFolder folder;
  const std::string file = folder.Write("token", "0123456789abcde\xFF\n");
  ASSERT_TRUE(Parse({"--cluster_token_file=" + file}).ok());
  EXPECT_EQ(ServerOptionsFromFlags()->security.cluster_token, "0123456789abcde\xFF");
  folder.Write("token", "too short");
  EXPECT_EQ(ServerOptionsFromFlags().status().message(),
            "the cluster token in " + file + " must have at least 16 bytes, got 9");
}

TEST_F(FlagsTest, CertificatesReachTheirOptions) {
  const TlsFiles files = testing::TestAuthority("authority").Issue("own");
  // The authority is gone, and its files: a missing one is told by name.
  ASSERT_TRUE(Parse({"--tls_cert=" + files.cert, "--tls_key=" + files.key, "--tls_ca=" + files.ca}).ok());
  EXPECT_THAT(std::string(ServerOptionsFromFlags().status().message()), HasSubstr(files.ca));
  const testing::TestAuthority authority("authority");
  const TlsFiles own = authority.Issue("own");
  ASSERT_TRUE(Parse({"--tls_cert=" + own.cert, "--tls_key=" + own.key, "--tls_ca=" + own.ca}).ok());
  const absl::StatusOr<ServerOptions> options = ServerOptionsFromFlags();
  ASSERT_TRUE(options.ok()) << options.status();
  EXPECT_EQ(options->security.tls.cert, own.cert);
  EXPECT_EQ(options->security.tls.key, own.key);
  EXPECT_EQ(options->security.tls.ca, own.ca);
  EXPECT_TRUE(options->security.tls.client_certificates);
}

TEST_F(FlagsTest, ErrorsNameFlagValueAndLimit) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"--threads=0", "--threads must be from 1 to 1024, got 0"},
      {"--memory_bytes=-1", "--memory_bytes must be from 0"},
      {"--transfer_buffer_bytes=5", "--transfer_buffer_bytes must be from 16777216"},
      {"--min_link_bytes_per_second=nan", "--min_link_bytes_per_second must be from 0"},
      {"--missing_item_seconds=0", "--missing_item_seconds must be from 0.001"},
      {"--listen=0.0.0.0:1", "--listen=0.0.0.0:1 is not loopback"},
      {"--tls_client_auth=maybe", "--tls_client_auth must be require or none, got \"maybe\""},
      {"--reload_seconds=0", "--reload_seconds must be from 1 to 3600, got 0"},
      {"--tls_cert=/c", "--tls_cert and --tls_key must be given together"},
      {"--model=", "--model must name a checkpoint folder"},
      {"--routers=", "--routers must name at least one host:port"},
  };
  for (const auto& [argument, message] : cases) {
    absl::FlagSaver restore;
    ASSERT_TRUE(Parse({"--model=/m", "--routers=a:1", argument}).ok());
    const absl::Status status = WorkerOptionsFromFlags().status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << argument;
    EXPECT_THAT(std::string(status.message()), HasSubstr(message));
  }
}

TEST_F(FlagsTest, ProcessFlags) {
  ASSERT_TRUE(Parse({"--grace_seconds=3", "--log_level=warning"}).ok());
  EXPECT_EQ(StartProcessFromFlags("test").value(), 3);
  ASSERT_TRUE(Parse({"--log_level=loud"}).ok());
  EXPECT_THAT(std::string(StartProcessFromFlags("test").status().message()), HasSubstr("--log_level must be debug"));
}

TEST_F(FlagsTest, ArgumentsThatAreNoFlagsAreRefused) {
  const absl::Status status = Parse({"--threads=1", "surplus"});
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("\"surplus\""));
}

TEST_F(FlagsTest, HelpShowsTheProjectsFlags) {
  for (const char* argument : {"--help", "--helpshort"}) {
    auto print = [&] {
      dup2(STDERR_FILENO, STDOUT_FILENO);  // Help goes to stdout, of which death tests see nothing.
      (void)Parse({argument});
    };
    EXPECT_EXIT(
        print(), [](int) { return true; },
        AllOf(HasSubstr("program: for tests."), HasSubstr("salamander/common/service/flags.cc"), HasSubstr("--routers"),
              HasSubstr("--grace_seconds"), Not(HasSubstr("--flagfile"))))
        << argument;
  }
}

}  // namespace
}  // namespace salamander::service
