// UCX between processes: peers that are killed in the middle, strangers at the port.
#include <arpa/inet.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>
#include <thread>

#include "absl/strings/escaping.h"
#include "common/transport/ucx_transport.h"
#include "tests/common/transport/transport_test_util.h"
#include "tests/testing/paths.h"

namespace salamander::transport::testing {
namespace {

using Clock = std::chrono::steady_clock;

// A running ucx_peer. Killed with the object.
class Peer {
 public:
  Peer(const std::string& transports, const std::string& role, const std::string& bytes = "0") {
    int in[2], out[2];
    EXPECT_EQ(pipe2(in, O_CLOEXEC), 0);
    EXPECT_EQ(pipe2(out, O_CLOEXEC), 0);
    const std::string program = salamander::testing::BinDir() + "/ucx_peer";
    pid_ = fork();
    if (pid_ == 0) {
      dup2(in[0], STDIN_FILENO);
      dup2(out[1], STDOUT_FILENO);
      execl(program.c_str(), "ucx_peer", transports.c_str(), role.c_str(), bytes.c_str(), nullptr);
      _exit(127);
    }
    close(in[0]);
    close(out[1]);
    in_ = in[1];
    out_ = out[0];
    std::string line;
    char c;
    while (read(out_, &c, 1) == 1 && c != '\n') line += c;
    address_ = absl::HexStringToBytes(line);
  }
  ~Peer() {
    Kill();
    close(in_);
    close(out_);
  }
  void Kill() {
    if (pid_ <= 0) return;
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
    pid_ = -1;
  }
  void Tell(const std::string& line) {
    const std::string with_end = line + "\n";
    EXPECT_EQ(write(in_, with_end.data(), with_end.size()), static_cast<ssize_t>(with_end.size()));
  }
  const std::string& address() const { return address_; }

 private:
  pid_t pid_ = -1;
  int in_ = -1, out_ = -1;
  std::string address_;
};

size_t OpenFiles() {
  size_t count = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) ++count;
  return count;
}

// Bounded wait for what has no callback: other processes and UCX's own clean-up.
bool Eventually(const std::function<bool()>& condition, double seconds = 10) {
  const auto deadline = Clock::now() + std::chrono::duration<double>(seconds);
  while (!condition()) {
    if (Clock::now() > deadline) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  return true;
}

class UcxProcessTest : public ::testing::TestWithParam<std::string> {
 protected:
  std::unique_ptr<Transport> Create() {
    auto transport = CreateUcxTransport({.transports = GetParam(), .net_devices = "lo"});
    EXPECT_TRUE(transport.ok()) << transport.status();
    return *std::move(transport);
  }
};

INSTANTIATE_TEST_SUITE_P(Transports, UcxProcessTest, ::testing::Values("all", "tcp"));

TEST_P(UcxProcessTest, DeliversToAnotherProcess) {
  Peer peer(GetParam(), "sink");
  auto transport = Create();
  auto connection = *transport->Connect(peer.address());
  Statuses sent;
  const std::vector<std::byte> payload = RandomBytes(8 << 20, 1);
  for (int i = 0; i < 20; ++i) connection->Send(std::to_string(i), payload, Into(sent));
  ASSERT_TRUE(sent.WaitFor(20));
  for (const absl::Status& status : sent.TakeAll()) EXPECT_TRUE(status.ok()) << status;
}

TEST_P(UcxProcessTest, SenderLearnsThatItsPeerWasKilled) {
  for (const std::string role : {"sink", "hold"}) {
    Peer peer(GetParam(), role);
    auto transport = Create();
    auto connection = *transport->Connect(peer.address());
    Statuses sent;
    const std::vector<std::byte> payload = RandomBytes(64 << 20, 1);
    for (int i = 0; i < 4; ++i) connection->Send("large", payload, Into(sent));
    ASSERT_TRUE(role == "hold" || sent.WaitFor(1));  // In the middle of the second.
    peer.Kill();
    const auto killed = Clock::now();
    ASSERT_TRUE(sent.WaitFor(4, 10)) << sent.size();
    EXPECT_LT(std::chrono::duration<double>(Clock::now() - killed).count(), 5);
    EXPECT_EQ(sent.TakeAll().back().code(), absl::StatusCode::kUnavailable);
    EXPECT_EQ(connection->status().code(), absl::StatusCode::kUnavailable);
    connection->Send("after", payload, Into(sent));
    ASSERT_TRUE(sent.WaitFor(1));
    EXPECT_EQ(sent.TakeAll()[0].code(), absl::StatusCode::kUnavailable);
  }
}

TEST_P(UcxProcessTest, IdleSenderLearnsThatItsPeerWasKilled) {
  Peer peer(GetParam(), "sink");
  auto transport = Create();
  auto connection = *transport->Connect(peer.address());
  Statuses sent;
  connection->Send("hello", {}, Into(sent));
  ASSERT_TRUE(sent.WaitFor(1));
  peer.Kill();
  EXPECT_TRUE(Eventually([&] { return !connection->status().ok(); }));
}

TEST_P(UcxProcessTest, ReceiverSurvivesThatItsPeerWasKilled) {
  Mailbox<Received> received;
  std::atomic<size_t> begun{0};
  auto transport = Create();
  transport->SetHandler([&, receive = ReceiveInto(received)](std::string_view header, auto message) {
    ++begun;
    receive(header, std::move(message));
  });
  for (int round = 0; round < 5; ++round) {
    Peer peer(GetParam(), "send", std::to_string(16 << 20));
    peer.Tell(absl::BytesToHexString(transport->address()));
    ASSERT_TRUE(received.WaitFor(3));
    peer.Kill();
    // What had begun ends; nothing more comes.
    EXPECT_TRUE(Eventually([&] { return received.size() == begun; })) << received.size() << " of " << begun;
    received.TakeAll();
    begun = 0;
  }
}

TEST_P(UcxProcessTest, LateAnswersToAKilledPeer) {
  Mailbox<Announced> announced;
  auto transport = Create();
  transport->SetHandler(KeepIn(announced));
  {
    Peer peer(GetParam(), "send", std::to_string(4 << 20));
    peer.Tell(absl::BytesToHexString(transport->address()));
    ASSERT_TRUE(announced.WaitFor(4));
  }
  std::vector<Announced> late = announced.TakeAll();
  std::vector<std::byte> memory(4 << 20);
  Statuses ended;
  late[0].message->Receive(absl::MakeSpan(memory), Into(ended));
  ASSERT_TRUE(ended.WaitFor(1));
  EXPECT_FALSE(ended.TakeAll()[0].ok());
  late[1].message->Refuse();
  late.clear();
}

// The TCP ports this process listens at, from the kernel.
std::set<int> ListeningPorts() {
  std::set<std::string> own;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
    std::error_code gone;
    const std::string target = std::filesystem::read_symlink(entry.path(), gone).string();
    if (target.rfind("socket:[", 0) == 0) own.insert(target.substr(8, target.size() - 9));
  }
  std::set<int> ports;
  std::ifstream table("/proc/self/net/tcp");
  std::string line;
  std::getline(table, line);
  while (std::getline(table, line)) {
    std::istringstream fields(line);
    std::string slot, local, remote, state, queues, timer, retransmits, user, timeout, inode;
    fields >> slot >> local >> remote >> state >> queues >> timer >> retransmits >> user >> timeout >> inode;
    if (state == "0A" && own.count(inode) > 0) {
      ports.insert(std::stoi(local.substr(local.find(':') + 1), nullptr, 16));
    }
  }
  return ports;
}

int ConnectTo(int port) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  EXPECT_EQ(connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
  return fd;
}

TEST(UcxStrangers, GarbageHalfOpenAndSlowClientsDoNoHarm) {
  Mailbox<Received> received;
  auto from = *CreateUcxTransport({.transports = "tcp", .net_devices = "lo"});
  auto to = *CreateUcxTransport({.transports = "tcp", .net_devices = "lo"});
  to->SetHandler(ReceiveInto(received));
  const std::set<int> ports = ListeningPorts();
  ASSERT_FALSE(ports.empty());
  auto first = *from->Connect(to->address());
  Statuses sent;
  first->Send("first", {}, Into(sent));
  ASSERT_TRUE(sent.WaitFor(1) && received.WaitFor(1));
  received.TakeAll();
  const size_t before = OpenFiles();
  std::vector<int> strangers;
  for (int port : ports) {
    for (int i = 0; i < 30; ++i) {
      const int fd = ConnectTo(port);
      const std::vector<std::byte> garbage = RandomBytes(i < 10 ? 3 : 100'000, i);
      // The slow and the silent send less than UCX waits for; the others more than it will read.
      const size_t bytes = i < 5 ? 0 : garbage.size();
      EXPECT_GE(send(fd, garbage.data(), bytes, MSG_NOSIGNAL | MSG_DONTWAIT), 0);
      if (i % 3 == 0)
        close(fd);
      else
        strangers.push_back(fd);
    }
  }
  // With all of them still there, others are served.
  auto connection = *from->Connect(to->address());
  const std::vector<std::byte> payload = RandomBytes(1 << 20, 9);
  connection->Send("friend", payload, Into(sent));
  ASSERT_TRUE(received.WaitFor(1));
  EXPECT_TRUE(received.TakeAll()[0].payload == payload);
  connection.reset();
  for (int fd : strangers) close(fd);
  EXPECT_TRUE(Eventually([&] { return OpenFiles() <= before; })) << OpenFiles() << " open files, were " << before;
}

TEST(UcxStrangers, ConnectionsThatCloseGiveTheirFilesBack) {
  Mailbox<Received> received;
  auto to = *CreateUcxTransport({.transports = "all", .net_devices = "lo"});
  to->SetHandler(ReceiveInto(received));
  auto from = *CreateUcxTransport({.transports = "all", .net_devices = "lo"});
  const std::vector<std::byte> payload = RandomBytes(1 << 20, 9);
  size_t before = 0;
  for (int i = 0; i < 20; ++i) {
    auto connection = *from->Connect(to->address());
    Statuses sent;
    connection->Send("short visit", payload, Into(sent));
    ASSERT_TRUE(sent.WaitFor(1));
    if (i == 0) before = OpenFiles();
  }
  EXPECT_TRUE(Eventually([&] { return OpenFiles() <= before; })) << OpenFiles() << " open files, were " << before;
}

TEST(UcxAddresses, DamagedOnesAreRefused) {
  auto from = *CreateUcxTransport({.net_devices = "lo"});
  auto to = *CreateUcxTransport({.net_devices = "lo"});
  const std::string address = to->address();
  std::mt19937_64 random(1);
  for (int i = 0; i < 2000; ++i) {
    std::string bad = address;
    if (i % 2 == 0) bad[random() % bad.size()] ^= static_cast<char>(1 + random() % 255);
    if (i % 2 == 1) bad.resize(random() % bad.size());
    EXPECT_EQ(from->Connect(bad).status().code(), absl::StatusCode::kInvalidArgument);
  }
}

}  // namespace
}  // namespace salamander::transport::testing
