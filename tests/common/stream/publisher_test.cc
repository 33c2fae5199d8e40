// The publisher: links, refusals by name, memory.
#include "common/stream/publisher.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/stream/wire.h"
#include "common/transport/fake_transport.h"
#include "tests/common/stream/stream_cluster.h"

namespace salamander::stream::testing {
namespace {

using ::testing::HasSubstr;
using transport::FakeFaults;
using transport::FakeNetwork;

const ItemShape kShape{v1::ELEMENT_TYPE_BFLOAT16, 1024};

PublishedItem Item(const std::vector<std::byte>& bytes, std::vector<Destination> destinations) {
  return {9, {v1::ITEM_KIND_KEYS_VALUES, 1, 2}, kShape, v1::CODEC_LOSSLESS, {{bytes}}, std::move(destinations)};
}

TEST(Publisher, UnreachablePeersFailConnect) {
  FakeNetwork network({});
  Node node(network.CreateTransport());
  Outcomes outcomes;
  node.publisher->Connect(1, "nonsense", outcomes.Expect());
  EXPECT_EQ(outcomes.Wait()[0].code(), absl::StatusCode::kInvalidArgument);
  node.publisher->Connect(2, "fake:77", outcomes.Expect());
  EXPECT_EQ(outcomes.Wait()[1].code(), absl::StatusCode::kUnavailable);
  for (const LinkInfo& link : node.publisher->links()) {
    EXPECT_FALSE(link.connected);
    EXPECT_FALSE(link.status.ok());
  }
}

TEST(Publisher, KeepsAGoodLinkAndReplacesABrokenOne) {
  FakeNetwork network({});
  Node from(network.CreateTransport()), to(network.CreateTransport());
  ASSERT_TRUE(Connect(from, to).ok());
  ASSERT_TRUE(Connect(from, to).ok());
  EXPECT_EQ(from.publisher->links().size(), 1);
  network.Kill(to.transport->address());
  EXPECT_FALSE(from.publisher->links()[0].connected);
  // The peer's id with a new address: as after a reconnect.
  auto again = network.CreateTransport();
  again->SetHandler([](std::string_view, std::unique_ptr<transport::IncomingMessage>) {});
  Outcomes outcomes;
  from.publisher->Connect(to.instance, again->address(), outcomes.Expect());
  EXPECT_TRUE(outcomes.Wait()[0].ok());
  EXPECT_TRUE(from.publisher->links()[0].connected);
  from.publisher.reset();
}

TEST(Publisher, RefusesSlowLinks) {
  FakeNetwork network({});
  Node to(network.CreateTransport());
  auto transport = network.CreateTransport();
  MemoryLedger ledger(1 << 20);
  StreamStats stats;
  Publisher publisher({.min_bytes_per_second = 1e15}, transport.get(), &ledger, &stats);
  Outcomes outcomes;
  publisher.Connect(to.instance, to.transport->address(), outcomes.Expect());
  const absl::Status status = outcomes.Wait()[0];
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(status.message(), HasSubstr("bytes a second, must move 1e+15"));
}

TEST(Publisher, MissingLinksFailByName) {
  FakeNetwork network({});
  Node node(network.CreateTransport());
  const std::vector<std::byte> bytes(4096);
  Outcomes outcomes;
  node.publisher->Publish(Item(bytes, {{0xAB, 1}}), outcomes.Expect());
  EXPECT_EQ(outcomes.Wait()[0].message(),
            "request 0000000000000009: keys-values of layer 1, span 2, to 00000000000000ab: no link");
  EXPECT_EQ(outcomes.Wait()[0].code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(node.stats.send_failures, 1);
  node.publisher->Publish(Item(bytes, {}), outcomes.Expect());
  EXPECT_TRUE(outcomes.Wait()[1].ok());
}

TEST(Publisher, FirstFailureOfSeveralDestinationsCounts) {
  FakeNetwork network({});
  Node from(network.CreateTransport()), to(network.CreateTransport());
  ASSERT_TRUE(Connect(from, to).ok());
  const std::vector<std::byte> bytes(4096);
  Outcomes outcomes;
  from.publisher->Publish(Item(bytes, {{to.instance, 1}, {0xAB, 1}}), outcomes.Expect());
  EXPECT_THAT(outcomes.Wait()[0].message(), HasSubstr("to 00000000000000ab"));
  EXPECT_EQ(from.stats.sent[v1::CODEC_LOSSLESS].items, 1);
  EXPECT_EQ(from.publisher->outstanding_bytes(), 0);
  from.publisher.reset();
}

TEST(Publisher, FullLedgerAndBadRunsFailByName) {
  FakeNetwork network({});
  Node node(network.CreateTransport());
  auto all = node.ledger.Take(MemoryOwner::kPages, node.ledger.Read().free - 100);
  const std::vector<std::byte> bytes(4096);
  Outcomes outcomes;
  node.publisher->Publish(Item(bytes, {{1, 1}}), outcomes.Expect());
  EXPECT_EQ(outcomes.Wait()[0].code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(outcomes.Wait()[0].message(),
              HasSubstr("request 0000000000000009: keys-values of layer 1, span 2: memory for in_transfer: asked"));
  *all = MemoryLedger::Hold();
  node.publisher->Publish(Item(std::vector<std::byte>(3), {{1, 1}}), outcomes.Expect());
  EXPECT_EQ(outcomes.Wait()[1].code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(node.publisher->outstanding_bytes(), 0);
  EXPECT_EQ(node.ledger.Read().free, node.ledger.Read().capacity);
}

TEST(Publisher, DisconnectAndDestructionEndSendsUnderway) {
  // Nobody answers at the other end: sends stay underway until their link goes.
  FakeFaults faults{.seed = 1, .delay = 1, .max_delay_seconds = 1000};
  faults.only = [](std::string_view header) { return header != kProbeHeader; };
  FakeNetwork network(faults);
  Node first(network.CreateTransport()), second(network.CreateTransport());
  Node from(network.CreateTransport());
  ASSERT_TRUE(Connect(from, first).ok());
  ASSERT_TRUE(Connect(from, second).ok());
  const std::vector<std::byte> bytes(4096);
  Outcomes to_first, to_second;
  from.publisher->Publish(Item(bytes, {{first.instance, 1}}), to_first.Expect());
  from.publisher->Publish(Item(bytes, {{second.instance, 1}}), to_second.Expect());
  from.publisher->Disconnect(first.instance);
  EXPECT_EQ(to_first.Wait()[0].code(), absl::StatusCode::kCancelled);
  EXPECT_GT(from.publisher->outstanding_bytes(), 0);
  from.publisher.reset();
  EXPECT_EQ(to_second.Wait()[0].code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(from.ledger.Read().free, from.ledger.Read().capacity);
}

}  // namespace
}  // namespace salamander::stream::testing
