// The faults of the fake: each does what it says, as often as it says, and nothing else.
#include "common/transport/fake_transport.h"

#include <gtest/gtest.h>

#include "tests/common/transport/transport_test_util.h"

namespace salamander::transport::testing {
namespace {

constexpr int kMessages = 200;

struct Outcome {
  std::vector<absl::Status> sent;
  std::vector<Received> received;
  FakeNetwork::Counts counts;
  std::vector<std::byte> payload;
};

// Sends kMessages through a network with `faults` and waits for what must arrive.
Outcome Exchange(const FakeFaults& faults) {
  FakeNetwork network(faults);
  Mailbox<Received> received;
  auto from = network.CreateTransport(), to = network.CreateTransport();
  to->SetHandler(ReceiveInto(received));
  auto connection = *from->Connect(to->address());
  Outcome outcome;
  outcome.payload = RandomBytes(1000, 1);
  Statuses sent;
  for (int i = 0; i < kMessages; ++i) connection->Send(std::to_string(i), outcome.payload, Into(sent));
  EXPECT_TRUE(sent.WaitFor(kMessages));
  outcome.counts = network.counts();
  EXPECT_TRUE(received.WaitFor(kMessages - outcome.counts.dropped + outcome.counts.duplicated));
  connection.reset();
  outcome.sent = sent.TakeAll();
  outcome.received = received.TakeAll();
  return outcome;
}

TEST(FakeTransport, DropsWithoutTellingTheSender) {
  const Outcome outcome = Exchange({.seed = 1, .drop = 0.2});
  EXPECT_GT(outcome.counts.dropped, 10);
  EXPECT_EQ(outcome.received.size(), kMessages - outcome.counts.dropped);
  for (const absl::Status& status : outcome.sent) EXPECT_TRUE(status.ok());
}

TEST(FakeTransport, Duplicates) {
  const Outcome outcome = Exchange({.seed = 2, .duplicate = 0.2});
  EXPECT_GT(outcome.counts.duplicated, 10);
  EXPECT_EQ(outcome.received.size(), kMessages + outcome.counts.duplicated);
  for (const Received& got : outcome.received) EXPECT_TRUE(got.payload == outcome.payload);
}

TEST(FakeTransport, CorruptsOneBit) {
  const Outcome outcome = Exchange({.seed = 3, .corrupt = 0.2});
  int64_t flipped = 0;
  for (const Received& got : outcome.received) {
    for (size_t i = 0; i < got.payload.size(); ++i) {
      flipped += __builtin_popcount(static_cast<int>(got.payload[i] ^ outcome.payload[i]));
    }
  }
  EXPECT_GT(flipped, 10);
  EXPECT_EQ(flipped, outcome.counts.corrupted);
}

TEST(FakeTransport, ReordersAndDelays) {
  for (const FakeFaults& faults : {FakeFaults{.seed = 4, .reorder = true}, FakeFaults{.seed = 5, .delay = 0.5}}) {
    const Outcome outcome = Exchange(faults);
    int out_of_order = 0;
    for (size_t i = 1; i < outcome.received.size(); ++i) {
      out_of_order += std::stoi(outcome.received[i].header) < std::stoi(outcome.received[i - 1].header);
    }
    EXPECT_GT(out_of_order, 10);
    EXPECT_EQ(outcome.received.size(), kMessages);
  }
}

TEST(FakeTransport, OnlyWhatIsSingledOut) {
  FakeFaults faults{.seed = 6, .drop = 1};
  faults.only = [](std::string_view header) { return header == "7"; };
  const Outcome outcome = Exchange(faults);
  EXPECT_EQ(outcome.counts.dropped, 1);
  for (const Received& got : outcome.received) EXPECT_NE(got.header, "7");
}

TEST(FakeTransport, KillBreaksLinksBothWays) {
  FakeNetwork network({});
  Mailbox<Announced> announced;
  auto a = network.CreateTransport(), b = network.CreateTransport();
  a->SetHandler(KeepIn(announced));
  b->SetHandler(KeepIn(announced));
  auto there = *a->Connect(b->address()), back = *b->Connect(a->address());
  const std::vector<std::byte> payload = RandomBytes(100, 1);
  Statuses sent;
  there->Send("there", payload, Into(sent));
  back->Send("back", payload, Into(sent));
  ASSERT_TRUE(announced.WaitFor(2));
  network.Kill(b->address());
  ASSERT_TRUE(sent.WaitFor(2));
  there->Send("after", payload, Into(sent));
  ASSERT_TRUE(sent.WaitFor(3));
  for (const absl::Status& status : sent.TakeAll()) EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_FALSE(there->status().ok());
  EXPECT_FALSE(back->status().ok());
  EXPECT_EQ(a->Connect(b->address()).status().code(), absl::StatusCode::kUnavailable);
  // What waited at the dead end cannot be received.
  Statuses ended;
  std::vector<std::byte> memory(100);
  for (Announced& late : announced.TakeAll()) late.message->Receive(absl::MakeSpan(memory), Into(ended));
  ASSERT_TRUE(ended.WaitFor(2));
  for (const absl::Status& status : ended.TakeAll()) EXPECT_FALSE(status.ok());
}

}  // namespace
}  // namespace salamander::transport::testing
