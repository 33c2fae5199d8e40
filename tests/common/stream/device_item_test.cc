// Items from and to a device's memory, by message and within one process.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>

#include "common/transport/fake_transport.h"
#include "tests/common/stream/stream_cluster.h"

namespace salamander::stream::testing {
namespace {

using ::testing::HasSubstr;

const ItemId kItem{v1::ITEM_KIND_KEYS_VALUES, 3, 7};
const ItemShape kShape{v1::ELEMENT_TYPE_BFLOAT16, 1024};

// A device whose memory holds every byte inverted, so that who reads or writes it past this object gets other bytes.
class InvertingDevice final : public ItemMemory {
 public:
  absl::Status ToHost(absl::Span<const MemoryCopy> copies) override { return Invert(copies); }
  absl::Status ToDevice(absl::Span<const MemoryCopy> copies) override { return Invert(copies); }
  absl::Status OnDevice(absl::Span<const MemoryCopy> copies) override {
    for (const MemoryCopy& copy : copies) {
      ++copies_on_device;
      std::memcpy(copy.to, copy.from, copy.bytes);
    }
    return failure;
  }
  std::byte* AllocateHost(int64_t bytes) override {
    ++host_buffers;
    host_bytes += bytes;
    return new std::byte[bytes];
  }
  void FreeHost(std::byte* memory, int64_t bytes) override {
    host_bytes -= bytes;
    delete[] memory;
  }
  static std::vector<std::byte> Inverted(std::vector<std::byte> bytes) {
    for (std::byte& byte : bytes) byte = ~byte;
    return bytes;
  }

  int copies_on_device = 0;
  std::atomic<int> host_buffers{0};
  std::atomic<int64_t> host_bytes{0};  // not freed
  absl::Status failure;

 private:
  absl::Status Invert(absl::Span<const MemoryCopy> copies) {
    for (const MemoryCopy& copy : copies) {
      for (int64_t i = 0; i < copy.bytes; ++i) copy.to[i] = ~copy.from[i];
    }
    return failure;
  }
};

std::vector<std::byte> SomeBytes(size_t count) {
  std::vector<std::byte> bytes(count);
  for (size_t i = 0; i < count; ++i) bytes[i] = static_cast<std::byte>(i * 7 + i / 251);
  return bytes;
}

class DeviceItemTest : public ::testing::Test {
 protected:
  DeviceItemTest() : from_(network_.CreateTransport()), to_(network_.CreateTransport()) {
    EXPECT_TRUE(Connect(from_, to_).ok());
    subscription_ = to_.receiver->Subscribe(
        1,
        {{kItem, kShape, {absl::MakeSpan(received_).first(3072), absl::MakeSpan(received_).subspan(3072)}, &device_}},
        [this] { changed_.Notify(); });
  }

  absl::Status Publish(Node& node, v1::Codec codec) {
    PublishedItem item{.request = 1, .id = kItem, .shape = kShape, .codec = codec, .source = {}, .destinations = {}};
    item.source = {.runs = {absl::MakeConstSpan(held_).first(1024), absl::MakeConstSpan(held_).subspan(1024)},
                   .memory = &device_,
                   .ready = [this] { return ready_; }};
    item.destinations = {{to_.instance, subscription_->epoch(), subscription_->secret()}};
    Outcomes outcomes;
    node.publisher->Publish(std::move(item), outcomes.Expect());
    return outcomes.Wait().at(0);
  }
  bool WaitSettled() {
    return changed_.WaitFor([this] { return subscription_->complete() || !subscription_->status().ok(); });
  }

  transport::FakeNetwork network_{{}};
  Node from_, to_;
  InvertingDevice device_;
  const std::vector<std::byte> bytes_ = SomeBytes(8192);
  const std::vector<std::byte> held_ = InvertingDevice::Inverted(bytes_);
  std::vector<std::byte> received_ = std::vector<std::byte>(8192);
  absl::Status ready_;
  Signal changed_;
  std::unique_ptr<Subscription> subscription_;
};

TEST_F(DeviceItemTest, ByMessage) {
  for (v1::Codec codec : {v1::CODEC_RAW, v1::CODEC_LOSSLESS}) {
    received_.assign(received_.size(), std::byte{0});
    subscription_ = to_.receiver->Subscribe(1, {{kItem, kShape, {absl::MakeSpan(received_)}, &device_}},
                                            [this] { changed_.Notify(); });
    ASSERT_TRUE(Publish(from_, codec).ok());
    ASSERT_TRUE(WaitSettled());
    EXPECT_TRUE(subscription_->complete()) << subscription_->status();
    EXPECT_TRUE(received_ == held_);
  }
  EXPECT_EQ(device_.copies_on_device, 0);
  // What is copied, and what is made of it, lies in the device's host memory: a buffer at each end of a raw item; of an
  // encoded one, two at the sending end.
  EXPECT_EQ(device_.host_buffers, 2 + 3);
  EXPECT_EQ(device_.host_bytes, 0);
  EXPECT_EQ(from_.ledger.Read().free, from_.ledger.Read().capacity);
}

TEST_F(DeviceItemTest, WithinOneProcessItNeverLeavesTheDevice) {
  to_.publisher->ServeLocally(to_.instance, to_.receiver.get());
  Outcomes outcomes;
  to_.publisher->Connect(to_.instance, "no address", outcomes.Expect());
  EXPECT_TRUE(outcomes.Wait()[0].ok());
  ASSERT_EQ(to_.publisher->links().size(), 1u);
  EXPECT_TRUE(to_.publisher->links()[0].connected);

  ASSERT_TRUE(Publish(to_, v1::CODEC_LOSSLESS).ok());
  EXPECT_TRUE(subscription_->complete()) << subscription_->status();
  EXPECT_TRUE(received_ == held_);
  EXPECT_EQ(device_.copies_on_device, 3);  // Cut at 1024 by one side and at 3072 by the other.
  EXPECT_EQ(to_.stats.sent[v1::CODEC_RAW].items, 1);
  EXPECT_EQ(to_.stats.received[v1::CODEC_RAW].items, 1);
  // Once more: dropped like a duplicate message.
  ASSERT_TRUE(Publish(to_, v1::CODEC_LOSSLESS).ok());
  EXPECT_EQ(to_.stats.refused_duplicate, 1);
  EXPECT_EQ(device_.copies_on_device, 3);
}

TEST_F(DeviceItemTest, FailedCopiesFailTheReceiversRequestByName) {
  to_.publisher->ServeLocally(to_.instance, to_.receiver.get());
  device_.failure = absl::InternalError("the device is gone");
  ASSERT_TRUE(Publish(to_, v1::CODEC_RAW).ok());
  EXPECT_THAT(subscription_->status().message(), HasSubstr("keys-values of layer 3, span 7: the device is gone"));
  EXPECT_FALSE(subscription_->complete());
}

TEST_F(DeviceItemTest, SourcesThatNeverBecomeReadyFailThePublish) {
  ready_ = absl::InternalError("the kernel failed");
  for (v1::Codec codec : {v1::CODEC_RAW, v1::CODEC_LOSSLESS}) {
    EXPECT_THAT(Publish(from_, codec).message(), HasSubstr("keys-values of layer 3, span 7: the kernel failed"));
  }
  EXPECT_FALSE(subscription_->Has(kItem));
}

TEST_F(DeviceItemTest, FailedReadsFailThePublishAndGiveTheMemoryBack) {
  device_.failure = absl::InternalError("the device is gone");
  EXPECT_THAT(Publish(from_, v1::CODEC_LOSSLESS).message(), HasSubstr("the device is gone"));
  EXPECT_EQ(from_.ledger.Read().free, from_.ledger.Read().capacity);
  EXPECT_EQ(from_.publisher->outstanding_bytes(), 0);
}

}  // namespace
}  // namespace salamander::stream::testing
