// What every transport promises, over the fake and over UCX's ways of moving bytes.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <map>
#include <thread>

#include "common/transport/fake_transport.h"
#include "common/transport/ucx_transport.h"
#include "tests/common/transport/transport_test_util.h"

namespace salamander::transport::testing {
namespace {

using ::testing::HasSubstr;

// Which transport: "fake", or UCX over these transports.
class TransportTest : public ::testing::TestWithParam<std::string> {
 protected:
  std::unique_ptr<Transport> Create() {
    if (GetParam() == "fake") return network_.CreateTransport();
    auto transport = CreateUcxTransport({.transports = GetParam(), .net_devices = "lo"});
    EXPECT_TRUE(transport.ok()) << transport.status();
    return *std::move(transport);
  }

 private:
  FakeNetwork network_{FakeFaults{}};
};

INSTANTIATE_TEST_SUITE_P(Transports, TransportTest,
                         ::testing::Values("fake", "all", "tcp", "tcp,cma", "posix,cma,tcp", "sysv,tcp"),
                         [](const ::testing::TestParamInfo<std::string>& tested) {
                           std::string name = tested.param;
                           std::replace(name.begin(), name.end(), ',', '_');
                           return name;
                         });

TEST_P(TransportTest, DeliversAllSizes) {
  Mailbox<Received> received;
  auto from = Create(), to = Create();
  to->SetHandler(ReceiveInto(received));
  auto connection = *from->Connect(to->address());
  const std::vector<size_t> sizes{0,    1,    7,     64,    512,       4095,     4096,
                                  4097, 8192, 65536, 65537, 1'000'003, 16 << 20, 64 << 20};
  Statuses sent;
  for (size_t size : sizes) {
    const std::vector<std::byte> payload = RandomBytes(size, size);
    const std::string header = std::to_string(size);
    connection->Send(header, payload, Into(sent));
    ASSERT_TRUE(sent.WaitFor(1)) << size;
    EXPECT_TRUE(sent.TakeAll()[0].ok());
    ASSERT_TRUE(received.WaitFor(1)) << size;
    const Received got = std::move(received.TakeAll()[0]);
    EXPECT_TRUE(got.status.ok()) << got.status;
    EXPECT_EQ(got.header, header);
    EXPECT_TRUE(got.payload == payload) << size;
  }
  EXPECT_TRUE(connection->status().ok());
}

TEST_P(TransportTest, ManySendsAtOnceFromManyThreads) {
  constexpr int kThreads = 4, kEach = 50;
  Mailbox<Received> received;
  auto from = Create(), to = Create();
  to->SetHandler(ReceiveInto(received));
  auto connection = *from->Connect(to->address());
  Statuses sent;
  std::map<std::string, std::vector<std::byte>> payloads;
  std::mt19937 random(1);
  for (int i = 0; i < kThreads * kEach; ++i) {
    // Longest header: nothing may depend on it being short.
    std::string header = std::to_string(i);
    header.resize(kMaxHeaderBytes, 'h');
    payloads[header] = RandomBytes(random() % 200'000, i);
  }
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      int i = 0;
      for (const auto& [header, payload] : payloads) {
        if (i++ % kThreads == t) connection->Send(header, payload, Into(sent));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  ASSERT_TRUE(sent.WaitFor(payloads.size()));
  ASSERT_TRUE(received.WaitFor(payloads.size()));
  for (const absl::Status& status : sent.TakeAll()) EXPECT_TRUE(status.ok()) << status;
  for (const Received& got : received.TakeAll()) {
    EXPECT_TRUE(got.status.ok()) << got.status;
    auto found = payloads.find(got.header);
    ASSERT_NE(found, payloads.end());
    EXPECT_TRUE(got.payload == found->second);
    payloads.erase(found);
  }
}

TEST_P(TransportTest, ReceivesLaterAndRefuses) {
  Mailbox<Announced> announced;
  auto from = Create(), to = Create();
  to->SetHandler(KeepIn(announced));
  auto connection = *from->Connect(to->address());
  const std::vector<std::byte> payload = RandomBytes(1 << 20, 3), small = RandomBytes(100, 4);
  Statuses sent, received;
  for (int i = 0; i < 3; ++i) connection->Send(std::to_string(i), payload, Into(sent));
  connection->Send("small", small, Into(sent));
  ASSERT_TRUE(announced.WaitFor(4));
  for (Announced& arrived : announced.TakeAll()) {
    if (arrived.header == "0") {
      arrived.message->Refuse();
    } else if (arrived.header == "1") {
      arrived.message.reset();  // Not answered: refused.
    } else {
      const std::vector<std::byte>& expected = arrived.header == "small" ? small : payload;
      ASSERT_EQ(arrived.message->payload_bytes(), expected.size());
      std::vector<std::byte> memory(expected.size());
      arrived.message->Receive(absl::MakeSpan(memory), Into(received));
      arrived.message.reset();
      ASSERT_TRUE(received.WaitFor(1));
      EXPECT_TRUE(received.TakeAll()[0].ok());
      EXPECT_TRUE(memory == expected);
    }
  }
  ASSERT_TRUE(sent.WaitFor(4));
  for (const absl::Status& status : sent.TakeAll()) EXPECT_TRUE(status.ok()) << status;
}

TEST_P(TransportTest, RefusesLongHeadersAndBadAddresses) {
  Mailbox<Received> received;
  auto from = Create(), to = Create();
  to->SetHandler(ReceiveInto(received));
  std::string address = to->address();
  EXPECT_EQ(from->Connect("").status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(from->Connect("nonsense").status().code(), absl::StatusCode::kInvalidArgument);
  auto connection = *from->Connect(address);
  Statuses sent;
  connection->Send(std::string(kMaxHeaderBytes + 1, 'x'), {}, Into(sent));
  ASSERT_TRUE(sent.WaitFor(1));
  EXPECT_EQ(sent.TakeAll()[0].message(), "header of 513 bytes, at most 512");
  connection->Send("fine", {}, Into(sent));
  ASSERT_TRUE(sent.WaitFor(1));
  EXPECT_TRUE(sent.TakeAll()[0].ok());
  ASSERT_TRUE(received.WaitFor(1));
}

TEST_P(TransportTest, ClosingCancelsWhatIsUnfinished) {
  Mailbox<Announced> announced;
  Mailbox<Received> received, received_back;
  auto from = Create(), to = Create();
  to->SetHandler([keep = KeepIn(announced), receive = ReceiveInto(received)](std::string_view header,
                                                                             std::unique_ptr<IncomingMessage> message) {
    (header == "again" ? receive : keep)(header, std::move(message));
  });
  from->SetHandler(ReceiveInto(received_back));
  auto connection = *from->Connect(to->address());
  auto back = *to->Connect(from->address());
  Statuses sent;
  {
    const std::vector<std::byte> payload = RandomBytes(8 << 20, 5);
    for (int i = 0; i < 10; ++i) connection->Send("large", payload, Into(sent));
    ASSERT_TRUE(announced.WaitFor(1));
    const auto begin = std::chrono::steady_clock::now();
    connection.reset();
    // The receiver lets go of what it has not answered; closing does not wait until it would give up on that.
    EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::milliseconds(1500));
    // All callbacks ran before the destructor returned, and the payload may go.
    EXPECT_EQ(sent.size(), 10);
    for (const absl::Status& status : sent.TakeAll()) EXPECT_EQ(status.code(), absl::StatusCode::kCancelled) << status;
  }
  // What was announced cannot be received any more; it ends all the same, and the receiver lives. (Not always by an
  // error: shared memory shows whatever the sender keeps there now.)
  Statuses ended;
  std::vector<std::byte> memory(8 << 20);
  auto late = announced.TakeAll();
  late[0].message->Receive(absl::MakeSpan(memory), Into(ended));
  ASSERT_TRUE(ended.WaitFor(1));
  late.clear();
  // The other direction does not notice, and a new connection works.
  const std::vector<std::byte> payload = RandomBytes(1 << 20, 6);
  back->Send("back", payload, Into(sent));
  ASSERT_TRUE(received_back.WaitFor(1));
  EXPECT_TRUE(received_back.TakeAll()[0].payload == payload);
  ASSERT_TRUE(sent.WaitFor(1));
  EXPECT_TRUE(sent.TakeAll()[0].ok());
  connection = *from->Connect(to->address());
  connection->Send("again", payload, Into(sent));
  ASSERT_TRUE(sent.WaitFor(1));
  EXPECT_TRUE(sent.TakeAll()[0].ok());
}

// A receive that has begun when the sender closes ends as well.
TEST_P(TransportTest, ClosingEndsReceivesUnderway) {
  Mailbox<Received> received;
  std::atomic<size_t> begun{0};
  auto from = Create(), to = Create();
  to->SetHandler(
      [&, receive = ReceiveInto(received)](std::string_view header, std::unique_ptr<IncomingMessage> message) {
        ++begun;
        receive(header, std::move(message));
      });
  const std::vector<std::byte> payload = RandomBytes(4 << 20, 8);
  for (int round = 0; round < 10; ++round) {
    auto connection = *from->Connect(to->address());
    Statuses sent;
    for (int i = 0; i < 8; ++i) connection->Send("large", payload, Into(sent));
    ASSERT_TRUE(sent.WaitFor(1 + round % 4));
    connection.reset();
    ASSERT_EQ(sent.size(), 8);
  }
  auto connection = *from->Connect(to->address());
  Statuses sent;
  connection->Send("last", payload, Into(sent));
  ASSERT_TRUE(sent.WaitFor(1));
  EXPECT_TRUE(sent.TakeAll()[0].ok());
  ASSERT_TRUE(received.WaitFor(begun)) << received.size() << " of " << begun;
  for (const Received& got : received.TakeAll()) {
    if (got.header != "last") continue;
    EXPECT_TRUE(got.status.ok()) << got.status;
    EXPECT_TRUE(got.payload == payload);
  }
}

TEST_P(TransportTest, MessagesMayOutliveTheTransport) {
  Mailbox<Announced> announced;
  auto from = Create(), to = Create();
  to->SetHandler(KeepIn(announced));
  auto connection = *from->Connect(to->address());
  const std::vector<std::byte> payload = RandomBytes(1 << 20, 7);
  Statuses sent, received;
  for (int i = 0; i < 3; ++i) connection->Send("large", payload, Into(sent));
  ASSERT_TRUE(announced.WaitFor(3));
  auto left = announced.TakeAll();
  to.reset();
  std::vector<std::byte> memory(payload.size());
  left[0].message->Receive(absl::MakeSpan(memory), Into(received));
  left[1].message->Refuse();
  left.clear();
  EXPECT_EQ(received.size(), 0);
  // The sender hears of it: refused while the other end closed down, or gone.
  EXPECT_TRUE(sent.WaitFor(3));
  connection->Send("after", payload, Into(sent));
  EXPECT_TRUE(sent.WaitFor(4));
  EXPECT_EQ(sent.TakeAll().back().code(), absl::StatusCode::kUnavailable);
  EXPECT_FALSE(connection->status().ok());
}

}  // namespace
}  // namespace salamander::transport::testing
