// What a stranger can send to the open ports: nothing of it may crash the process, stop it from serving, or stay
// behind.
#include <gtest/gtest.h>

#include <chrono>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/match.h"
#include "common/base/clock.h"
#include "common/service/server.h"
#include "tests/common/service/probe.h"
#include "tests/common/service/raw_client.h"

namespace salamander::service {
namespace {

using testing::HttpGet;
using testing::IsServing;
using testing::OpenFileDescriptors;
using testing::RawClient;

class GarbageTest : public ::testing::Test {
 protected:
  void SetUp() override {
    absl::StatusOr<std::unique_ptr<Server>> server = Server::Start({}, &metrics_, {});
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    server_->SetServing(true);
    ExpectServing();  // whatever is made at first use is there from now on
    descriptors_ = OpenFileDescriptors();
  }

  void ExpectServing() {
    // One attempt to connect may take two seconds: too few behind thousands on a slow machine, and clients try again.
    absl::StatusOr<bool> serving;
    const double deadline = RealClock().Now() + 20;
    do {
      serving = IsServing(server_->address(), "");
    } while (absl::IsUnavailable(serving.status()) && RealClock().Now() < deadline);
    ASSERT_TRUE(serving.ok()) << serving.status();
    EXPECT_TRUE(*serving);
    EXPECT_TRUE(absl::StrContains(HttpGet(server_->metrics_address(), "/metrics").value(), "salamander_build_info"));
  }
  // Connections are closed by other threads: waits, but not for ever.
  void ExpectNoDescriptorsLeft() {
    const double deadline = RealClock().Now() + 30;
    while (OpenFileDescriptors() > descriptors_ && RealClock().Now() < deadline) {
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
    EXPECT_LE(OpenFileDescriptors(), descriptors_);
  }
  std::vector<std::string> Ports() const { return {server_->address(), server_->metrics_address()}; }
  std::string RandomBytes(size_t count) {
    std::string bytes(count, '\0');
    for (char& byte : bytes) byte = static_cast<char>(random_());
    return bytes;
  }

  Metrics metrics_{"tester"};
  std::unique_ptr<Server> server_;
  std::mt19937 random_{7};
  int descriptors_ = 0;
};

TEST_F(GarbageTest, RandomBytes) {
  for (const std::string& port : Ports()) {
    for (int round = 0; round < 200; ++round) {
      RawClient client = RawClient::Connect(port).value();
      client.Send(RandomBytes(1 + random_() % 4000));
      if (round % 3 == 0) client.Reset();
    }
  }
  ExpectServing();
  ExpectNoDescriptorsLeft();
}

TEST_F(GarbageTest, RightBeginningWrongEnd) {
  const std::string preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
  for (int round = 0; round < 200; ++round) {
    RawClient grpc = RawClient::Connect(server_->address()).value();
    grpc.Send(preface + (round % 2 == 0 ? "" : std::string("\0\0\0\4\0\0\0\0\0", 9)) + RandomBytes(300));
    RawClient http = RawClient::Connect(server_->metrics_address()).value();
    http.Send("GET /metrics HTTP/1.1\r\nContent-Length: 99999999999\r\n" + RandomBytes(300));
  }
  ExpectServing();
  ExpectNoDescriptorsLeft();
}

TEST_F(GarbageTest, ThousandsOfConnections) {
  for (const std::string& port : Ports()) {
    for (int round = 0; round < 2000; ++round) {
      absl::StatusOr<RawClient> client = RawClient::Connect(port);
      ASSERT_TRUE(client.ok()) << client.status();
      if (round % 2 == 0) client->Reset();
    }
  }
  ExpectServing();
  ExpectNoDescriptorsLeft();
}

// Clients that connect and say nothing, or half of something, are shown the door.
TEST_F(GarbageTest, SilentConnectionsAreClosed) {
  std::vector<RawClient> clients;
  for (int i = 0; i < 100; ++i) {
    clients.push_back(RawClient::Connect(server_->address()).value());
    if (i % 2 == 0) clients.back().Send("PRI * HT");
  }
  const double start = RealClock().Now();
  for (RawClient& client : clients) {
    client.ReadAll(20);  // returns when the server closes
    ASSERT_LT(RealClock().Now() - start, 15);
  }
  ExpectServing();
}

TEST_F(GarbageTest, SilentMetricsConnectionsDoNotBlockScrapesForLong) {
  std::vector<RawClient> clients;
  for (int i = 0; i < 8; ++i) clients.push_back(RawClient::Connect(server_->metrics_address()).value());
  const double start = RealClock().Now();
  ExpectServing();
  EXPECT_LT(RealClock().Now() - start, 20);
}

}  // namespace
}  // namespace salamander::service
