// The receiver against all that can go wrong with a message.
#include "common/stream/receiver.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <chrono>
#include <thread>

#include "absl/strings/str_cat.h"
#include "common/base/clock.h"
#include "common/stream/codec.h"
#include "common/stream/wire.h"
#include "common/transport/fake_transport.h"
#include "common/transport/ucx_transport.h"
#include "tests/common/stream/stream_cluster.h"

namespace salamander::stream::testing {
namespace {

using ::testing::HasSubstr;
using transport::FakeFaults;
using transport::FakeNetwork;

const ItemId kItem{v1::ITEM_KIND_KEYS_VALUES, 3, 7};
const ItemShape kShape{v1::ELEMENT_TYPE_BFLOAT16, 1024};

bool NotAProbe(std::string_view header) { return header != kProbeHeader; }

// What a header for `at` begins with; the rest as a test wants it.
v1::ItemHeader HeaderFor(RequestId request, const Node& to, const Subscription& at) {
  v1::ItemHeader header;
  header.set_request_id(request);
  header.set_receiver_instance(to.instance);
  header.set_epoch(at.epoch());
  header.set_secret(at.secret());
  header.set_kind(kItem.kind);
  header.set_layer(kItem.layer);
  header.set_span(kItem.span);
  return header;
}

// A subscription to items of `bytes` bytes each.
struct Request {
  Request(Node& node, RequestId id, std::vector<ItemId> ids, size_t bytes = 4096) {
    std::vector<ExpectedItem> expected;
    memory.resize(ids.size());
    for (size_t i = 0; i < ids.size(); ++i) {
      memory[i].resize(bytes, std::byte{0xEE});
      expected.push_back({ids[i], kShape, {absl::MakeSpan(memory[i])}});
    }
    subscription = node.receiver->Subscribe(id, std::move(expected), [this] { changed.Notify(); });
  }
  absl::Status WaitFailed() {
    EXPECT_TRUE(changed.WaitFor([this] { return !subscription->status().ok(); }));
    return subscription->status();
  }
  bool WaitReceived(int64_t count) {
    return changed.WaitFor([&] { return subscription->received_items() >= count; });
  }
  std::vector<std::vector<std::byte>> memory;
  Signal changed;
  std::unique_ptr<Subscription> subscription;
};

PublishedItem Item(RequestId request, const ItemId& id, const std::vector<std::byte>& bytes, const Node& to,
                   const Request& at, v1::Codec codec = v1::CODEC_RAW) {
  return {request, id, kShape, codec, {{bytes}}, {{to.instance, at.subscription->epoch(), at.subscription->secret()}}};
}

class ReceiverTest : public ::testing::Test {
 protected:
  void Build(FakeFaults faults = {}, ReceiverOptions options = {}) {
    faults.only = &NotAProbe;
    network = std::make_unique<FakeNetwork>(std::move(faults));
    from = std::make_unique<Node>(network->CreateTransport());
    to = std::make_unique<Node>(network->CreateTransport(), options);
    ASSERT_TRUE(Connect(*from, *to).ok());
    // The last probe's memory is given back a moment after its sender has heard of its arrival.
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(10);
    while (!LedgerIsFree(*to)) {
      ASSERT_LT(std::chrono::steady_clock::now(), deadline);
      std::this_thread::yield();
    }
  }
  absl::Status Publish(PublishedItem item) {
    Outcomes outcomes;
    from->publisher->Publish(std::move(item), outcomes.Expect());
    return outcomes.Wait().at(0);
  }
  // Sends a header and payload as they are, past the publisher.
  absl::Status SendRaw(const std::string& header, const std::vector<std::byte>& payload) {
    auto connection = *from->transport->Connect(to->transport->address());
    Outcomes outcomes;
    connection->Send(header, payload, outcomes.Expect());
    return outcomes.Wait().at(0);
  }
  bool LedgerIsFree(const Node& node) { return node.ledger.Read().free == node.ledger.Read().capacity; }

  std::unique_ptr<FakeNetwork> network;
  std::unique_ptr<Node> from, to;
  const std::vector<std::byte> bytes = std::vector<std::byte>(4096, std::byte{0x41});
};

TEST_F(ReceiverTest, CorruptItemFailsByNameAndNothingIsMarked) {
  Build({.seed = 1, .corrupt = 1});
  for (v1::Codec codec : {v1::CODEC_RAW, v1::CODEC_LOSSLESS}) {
    Request request(*to, 5, {kItem});
    ASSERT_TRUE(Publish(Item(5, kItem, bytes, *to, request, codec)).ok());
    const absl::Status status = request.WaitFailed();
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
    EXPECT_THAT(status.message(),
                HasSubstr("keys-values of layer 3, span 7: checksum of the received bytes: expected"));
    EXPECT_FALSE(request.subscription->Has(kItem));
    EXPECT_FALSE(request.subscription->complete());
    EXPECT_EQ(request.memory[0], std::vector<std::byte>(4096, std::byte{0xEE}));
  }
  EXPECT_EQ(to->stats.checksum_failures, 2);
  EXPECT_TRUE(LedgerIsFree(*to));
}

TEST_F(ReceiverTest, LostItemFailsByName) {
  Build({.seed = 1, .drop = 1}, {.missing_item_seconds = 0.05});
  const ItemId other{v1::ITEM_KIND_STATE, 4, 7}, later{v1::ITEM_KIND_STATE, 4, 8};
  Request request(*to, 5, {kItem, other, later});
  ASSERT_TRUE(Publish(Item(5, kItem, bytes, *to, request)).ok());
  request.subscription->SpanFinished(7);
  const absl::Status status = request.WaitFailed();
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(status.message(),
            "keys-values of layer 3, span 7; state of layer 4, span 7: never arrived, although span 7 was finished");
  EXPECT_EQ(to->stats.lost_items, 2);
  EXPECT_EQ(request.subscription->Missing().size(), 3);
}

TEST_F(ReceiverTest, FinishedSpanWithAllItemsIsFine) {
  Build({}, {.missing_item_seconds = 0.01});
  const ItemId later{v1::ITEM_KIND_STATE, 4, 8};
  Request request(*to, 5, {kItem, later});
  ASSERT_TRUE(Publish(Item(5, kItem, bytes, *to, request)).ok());
  ASSERT_TRUE(request.WaitReceived(1));
  request.subscription->SpanFinished(7);
  std::this_thread::sleep_for(std::chrono::milliseconds(50));  // Time for what must not happen.
  EXPECT_TRUE(request.subscription->status().ok());
}

TEST_F(ReceiverTest, DuplicatesAreDropped) {
  Build({.seed = 1, .duplicate = 1});
  const ItemId next{v1::ITEM_KIND_STATE, 4, 7};
  Request request(*to, 5, {kItem, next});
  ASSERT_TRUE(Publish(Item(5, kItem, bytes, *to, request)).ok());
  // One decoder works in order of arrival: with this one done, nothing of the first is left.
  ASSERT_TRUE(Publish(Item(5, next, bytes, *to, request)).ok());
  ASSERT_TRUE(request.WaitReceived(2));
  EXPECT_TRUE(request.subscription->complete());
  EXPECT_EQ(request.memory[0], bytes);
  EXPECT_EQ(to->stats.refused_duplicate, 2);
  EXPECT_EQ(to->stats.received[v1::CODEC_RAW].items, 2);
}

TEST_F(ReceiverTest, StaleEpochsAndOtherInstancesAreRefused) {
  Build();
  PublishedItem replayed;
  {
    Request closed(*to, 5, {kItem});
    replayed = Item(5, kItem, bytes, *to, closed);
    ASSERT_TRUE(Publish(replayed).ok());
    ASSERT_TRUE(closed.WaitReceived(1));
  }
  Request request(*to, 5, {kItem});
  ASSERT_TRUE(Publish(replayed).ok());
  EXPECT_EQ(to->stats.refused_unknown, 1);
  // Another request's id with this one's epoch.
  ASSERT_TRUE(Publish(Item(6, kItem, bytes, *to, request)).ok());
  EXPECT_EQ(to->stats.refused_unknown, 2);
  // A header for another process that arrives here.
  v1::ItemHeader header = HeaderFor(5, *to, *request.subscription);
  header.set_receiver_instance(to->instance + 1);
  ASSERT_TRUE(SendRaw(header.SerializeAsString(), bytes).ok());
  EXPECT_EQ(to->stats.refused_unknown, 3);
  EXPECT_EQ(request.subscription->received_items(), 0);
  EXPECT_TRUE(request.subscription->status().ok());
  EXPECT_EQ(to->stats.refused_secret, 0);
}

// Refused before a byte moves, whatever else is right about them; the request neither fails nor changes.
TEST_F(ReceiverTest, ItemsWithoutTheReservationsSecretAreRefused) {
  Build();
  Request request(*to, 5, {kItem}), other(*to, 6, {kItem});
  const std::string secret = request.subscription->secret();
  ASSERT_EQ(secret.size(), kStreamSecretBytes);
  EXPECT_NE(secret, other.subscription->secret());
  std::string almost = secret;
  almost.back() ^= 1;
  const std::vector<std::string> wrong = {
      "",                                        // forged without one
      almost,                                    // guessed
      secret.substr(0, kStreamSecretBytes - 1),  // cut
      secret + "x",
      other.subscription->secret(),  // meant for another reservation
  };
  ::testing::internal::CaptureStderr();
  for (const std::string& given : wrong) {
    PublishedItem item = Item(5, kItem, bytes, *to, request);
    item.destinations[0].secret = given;
    ASSERT_TRUE(Publish(item).ok());
  }
  // Malformed ones would fail the request if they had the secret.
  v1::ItemHeader header = HeaderFor(5, *to, *request.subscription);
  header.set_secret(almost);
  header.set_encoded_bytes(1);
  ASSERT_TRUE(SendRaw(header.SerializeAsString(), bytes).ok());
  const std::string log = ::testing::internal::GetCapturedStderr();
  EXPECT_THAT(log, HasSubstr("request 0000000000000005: keys-values of layer 3, span 7: refused: not the secret"));
  EXPECT_EQ(to->stats.refused_secret, 6);
  EXPECT_EQ(to->stats.refused_unknown + to->stats.refused_duplicate + to->stats.refused_malformed, 0);
  EXPECT_EQ(request.memory[0], std::vector<std::byte>(4096, std::byte{0xEE}));
  EXPECT_TRUE(request.subscription->status().ok());
  EXPECT_TRUE(LedgerIsFree(*to));

  ASSERT_TRUE(Publish(Item(5, kItem, bytes, *to, request)).ok());
  EXPECT_TRUE(request.WaitReceived(1));
}

// Also those from the same process, which come without a message.
TEST_F(ReceiverTest, ItemsOfTheSameProcessNeedTheSecretToo) {
  Build();
  Request request(*to, 5, {kItem});
  v1::ItemHeader header = HeaderFor(5, *to, *request.subscription);
  header.set_codec(v1::CODEC_RAW);
  header.set_raw_bytes(bytes.size());
  header.set_encoded_bytes(bytes.size());
  v1::ItemHeader forged = header;
  forged.set_secret(std::string(kStreamSecretBytes, '\0'));
  to->receiver->Deliver(forged, {{bytes}});
  EXPECT_EQ(to->stats.refused_secret, 1);
  EXPECT_EQ(request.subscription->received_items(), 0);
  to->receiver->Deliver(header, {{bytes}});
  EXPECT_EQ(request.subscription->received_items(), 1);
}

TEST_F(ReceiverTest, EveryRefusalNamesTheItem) {
  Build();
  Request request(*to, 5, {kItem});
  ::testing::internal::CaptureStderr();
  v1::ItemHeader header = HeaderFor(5, *to, *request.subscription);
  header.set_epoch(header.epoch() + 1);
  ASSERT_TRUE(SendRaw(header.SerializeAsString(), bytes).ok());
  ASSERT_TRUE(Publish(Item(5, kItem, bytes, *to, request)).ok());
  ASSERT_TRUE(request.WaitReceived(1));
  ASSERT_TRUE(Publish(Item(5, kItem, bytes, *to, request)).ok());
  const std::string log = ::testing::internal::GetCapturedStderr();
  for (const char* why : {"no such reservation here", "it came before"}) {
    EXPECT_THAT(log, HasSubstr(absl::StrCat("keys-values of layer 3, span 7: refused: ", why)));
  }
}

TEST_F(ReceiverTest, MalformedHeadersAreRefused) {
  Build();
  Request request(*to, 5, {kItem});
  ASSERT_TRUE(SendRaw("\xFFnonsense", bytes).ok());
  ASSERT_TRUE(SendRaw(std::string(kProbeHeader), std::vector<std::byte>(kMaxProbeBytes + 1)).ok());
  EXPECT_EQ(to->stats.refused_malformed, 2);
  // An item that this leg does not expect.
  ASSERT_TRUE(Publish(Item(5, {v1::ITEM_KIND_HIDDEN, 0, 7}, bytes, *to, request)).ok());
  EXPECT_EQ(to->stats.refused_malformed, 3);
  EXPECT_TRUE(request.subscription->status().ok());
  EXPECT_TRUE(LedgerIsFree(*to));
}

TEST_F(ReceiverTest, WrongSizesFailByName) {
  Build();
  Request request(*to, 5, {kItem});
  ASSERT_TRUE(Publish(Item(5, kItem, std::vector<std::byte>(4098), *to, request)).ok());
  EXPECT_EQ(request.WaitFailed().message(), "keys-values of layer 3, span 7: expected 4096 bytes, got 4098");
  Request second(*to, 6, {kItem});
  v1::ItemHeader header = HeaderFor(6, *to, *second.subscription);
  header.set_codec(v1::CODEC_RAW);
  header.set_raw_bytes(4096);
  header.set_encoded_bytes(4000);
  ASSERT_TRUE(SendRaw(header.SerializeAsString(), bytes).ok());
  EXPECT_EQ(second.WaitFailed().message(), "keys-values of layer 3, span 7: header says 4000 encoded bytes, got 4096");
  Request third(*to, 7, {kItem});
  header.set_request_id(7);
  header.set_epoch(third.subscription->epoch());
  header.set_secret(third.subscription->secret());
  header.set_encoded_bytes(4096);
  header.set_codec(static_cast<v1::Codec>(99));
  ASSERT_TRUE(SendRaw(header.SerializeAsString(), bytes).ok());
  EXPECT_EQ(third.WaitFailed().message(), "keys-values of layer 3, span 7: unknown codec 99");
  // Right checksum, but no encoding of 4096 bytes.
  Request fourth(*to, 8, {kItem});
  header.set_request_id(8);
  header.set_epoch(fourth.subscription->epoch());
  header.set_secret(fourth.subscription->secret());
  header.set_codec(v1::CODEC_LOSSLESS);
  header.set_checksum(Checksum(bytes));
  ASSERT_TRUE(SendRaw(header.SerializeAsString(), bytes).ok());
  EXPECT_THAT(fourth.WaitFailed().message(), HasSubstr("keys-values of layer 3, span 7: tile 0: block from"));
}

TEST_F(ReceiverTest, StagingBudgetMakesSendersWaitAndLetsAllThrough) {
  // Room for one and a half items at a time; the last is larger than the whole budget.
  Build({}, {.staging_bytes = 6000});
  std::vector<ItemId> ids;
  for (int32_t i = 0; i < 50; ++i) ids.push_back({v1::ITEM_KIND_STATE, i, 0});
  Request many(*to, 5, ids), large(*to, 6, {kItem}, 8192);
  const std::vector<std::byte> large_bytes(8192, std::byte{2});
  Outcomes outcomes;
  for (const ItemId& id : ids) from->publisher->Publish(Item(5, id, bytes, *to, many), outcomes.Expect());
  from->publisher->Publish(Item(6, kItem, large_bytes, *to, large), outcomes.Expect());
  for (const absl::Status& status : outcomes.Wait()) EXPECT_TRUE(status.ok()) << status;
  EXPECT_TRUE(many.WaitReceived(50));
  EXPECT_TRUE(large.WaitReceived(1));
  EXPECT_EQ(large.memory[0], large_bytes);
  EXPECT_TRUE(LedgerIsFree(*to));
}

TEST_F(ReceiverTest, FullLedgerMakesSendersWait) {
  Build();
  auto all = to->ledger.Take(MemoryOwner::kPages, to->ledger.Read().free);
  ASSERT_TRUE(all.ok());
  Request request(*to, 5, {kItem});
  Outcomes outcomes;
  from->publisher->Publish(Item(5, kItem, bytes, *to, request), outcomes.Expect());
  std::this_thread::sleep_for(std::chrono::milliseconds(50));  // Time for what must not happen.
  EXPECT_EQ(request.subscription->received_items(), 0);
  *all = MemoryLedger::Hold();
  EXPECT_TRUE(request.WaitReceived(1));
  EXPECT_TRUE(outcomes.Wait()[0].ok());
  EXPECT_TRUE(LedgerIsFree(*to));
}

TEST_F(ReceiverTest, DestroyedSubscriptionRefusesWhatWaits) {
  Build();
  auto all = to->ledger.Take(MemoryOwner::kPages, to->ledger.Read().free);
  ASSERT_TRUE(all.ok());
  auto request = std::make_unique<Request>(*to, 5, std::vector<ItemId>{kItem});
  Outcomes outcomes;
  from->publisher->Publish(Item(5, kItem, bytes, *to, *request), outcomes.Expect());
  request.reset();
  EXPECT_TRUE(outcomes.Wait()[0].ok());  // Refused: the sender is not held up.
}

// A subscription goes in the middle of transfers, and its pages with it: nothing may touch them any more.
void DestroyInTheMiddle(const std::function<std::unique_ptr<transport::Transport>()>& create) {
  constexpr size_t kItems = 16, kItemBytes = 1 << 20;
  auto from = std::make_unique<Node>(create()), to = std::make_unique<Node>(create());
  ASSERT_TRUE(Connect(*from, *to).ok());
  const std::vector<std::byte> bytes(kItemBytes, std::byte{0x41});
  for (int round = 0; round < 20; ++round) {
    void* const pages = mmap(nullptr, kItems * kItemBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    ASSERT_NE(pages, MAP_FAILED);
    std::vector<ExpectedItem> expected;
    for (size_t i = 0; i < kItems; ++i) {
      std::byte* const begin = static_cast<std::byte*>(pages) + i * kItemBytes;
      expected.push_back(
          {{v1::ITEM_KIND_STATE, static_cast<int32_t>(i), 0}, kShape, {absl::MakeSpan(begin, kItemBytes)}});
    }
    Signal changed;
    bool gone = false;
    auto subscription = to->receiver->Subscribe(round, expected, [&] {
      EXPECT_FALSE(gone);
      changed.Notify();
    });
    Outcomes outcomes;
    for (const ExpectedItem& item : expected) {
      PublishedItem published{static_cast<RequestId>(round), item.id, kShape, v1::CODEC_LOSSLESS, {{bytes}}, {}};
      published.destinations.push_back({to->instance, subscription->epoch(), subscription->secret()});
      from->publisher->Publish(std::move(published), outcomes.Expect());
    }
    ASSERT_TRUE(changed.WaitFor([&] { return subscription->received_items() >= round % 8; }));
    subscription.reset();
    gone = true;
    munmap(pages, kItems * kItemBytes);  // A write from here on is a fault.
    for (const absl::Status& status : outcomes.Wait()) EXPECT_TRUE(status.ok()) << status;
  }
  from->publisher.reset();
  EXPECT_EQ(from->ledger.Read().free, from->ledger.Read().capacity);
}

TEST(ReceiverLifetime, SubscriptionDestroyedInTheMiddleOverFake) {
  FakeNetwork network({.seed = 1, .delay = 0.2, .max_delay_seconds = 0.005, .reorder = true});
  DestroyInTheMiddle([&] { return network.CreateTransport(); });
}

TEST(ReceiverLifetime, SubscriptionDestroyedInTheMiddleOverUcx) {
  DestroyInTheMiddle([] { return *transport::CreateUcxTransport({.net_devices = "lo"}); });
}

TEST(ReceiverLifetime, ReceiverDestroyedWhileMessagesComeIn) {
  for (int round = 0; round < 20; ++round) {
    FakeNetwork network({.seed = 1, .reorder = true});
    auto from = std::make_unique<Node>(network.CreateTransport()),
         to = std::make_unique<Node>(network.CreateTransport());
    ASSERT_TRUE(Connect(*from, *to).ok());
    std::vector<ItemId> ids;
    for (int32_t i = 0; i < 40; ++i) ids.push_back({v1::ITEM_KIND_STATE, i, 0});
    auto request = std::make_unique<Request>(*to, 5, ids);
    const std::vector<std::byte> bytes(4096);
    Outcomes outcomes;
    for (const ItemId& id : ids) from->publisher->Publish(Item(5, id, bytes, *to, *request), outcomes.Expect());
    ASSERT_TRUE(request->WaitReceived(round % 4));
    request.reset();
    to->receiver.reset();
    EXPECT_EQ(outcomes.Wait().size(), ids.size());
    // The transport may still be about to say that it has received something.
    const double deadline = RealClock().Now() + 10;
    while (to->ledger.Read().free < to->ledger.Read().capacity && RealClock().Now() < deadline) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    EXPECT_EQ(to->ledger.Read().free, to->ledger.Read().capacity);
  }
}

}  // namespace
}  // namespace salamander::stream::testing
