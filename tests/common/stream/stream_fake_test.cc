// Publisher and receiver over the fake transport with each of its faults.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>

#include "common/stream/wire.h"
#include "common/transport/fake_transport.h"
#include "tests/common/stream/stream_cluster.h"

namespace salamander::stream::testing {
namespace {

using ::testing::HasSubstr;
using transport::FakeFaults;
using transport::FakeNetwork;

const LayerKinds kLayers{true, false, false, true, false};

// Runs a random plan on `workers` workers through a network with `faults` and expects the right bytes everywhere.
void ExpectRightBytes(FakeFaults faults, int workers, v1::Codec codec) {
  std::mt19937_64 random(faults.seed);
  faults.only = [](std::string_view header) { return header != kProbeHeader; };
  FakeNetwork network(faults);
  Cluster cluster(workers, [&] { return network.CreateTransport(); });
  const v1::Plan plan = RandomPlan(random, workers, codec);
  ASSERT_TRUE(CheckPlan(plan).ok());
  std::map<ItemId, std::vector<std::byte>> content;
  Outcomes outcomes;
  auto legs = cluster.Subscribe(1, plan, kLayers);
  cluster.PublishAll(1, plan, kLayers, legs, outcomes, content);
  for (const absl::Status& status : outcomes.Wait()) EXPECT_TRUE(status.ok()) << status;
  for (auto& [worker, leg] : legs) {
    ASSERT_TRUE(leg->WaitComplete()) << leg->subscription->status();
    EXPECT_TRUE(leg->subscription->Missing().empty());
    for (const auto& [id, bytes] : leg->memory) {
      EXPECT_TRUE(leg->subscription->Has(id));
      EXPECT_TRUE(bytes == content[id]) << ItemName(id) << " at worker " << worker;
    }
  }
  legs.clear();
  for (auto& node : cluster.nodes) {
    EXPECT_EQ(node->publisher->outstanding_bytes(), 0);
    EXPECT_EQ(node->ledger.Read().free, node->ledger.Read().capacity);
  }
}

TEST(StreamOverFake, FillsEveryManifest) {
  for (int workers = 1; workers <= 5; ++workers) {
    for (v1::Codec codec : {v1::CODEC_RAW, v1::CODEC_LOSSLESS}) {
      ExpectRightBytes({.seed = static_cast<uint64_t>(workers)}, workers, codec);
    }
  }
}

TEST(StreamOverFake, ToleratesDelayReorderAndDuplicates) {
  for (uint64_t seed = 1; seed <= 4; ++seed) {
    ExpectRightBytes({.seed = seed, .delay = 0.3}, 3, v1::CODEC_LOSSLESS);
    ExpectRightBytes({.seed = seed, .reorder = true}, 3, v1::CODEC_LOSSLESS);
    ExpectRightBytes({.seed = seed, .duplicate = 0.5}, 3, v1::CODEC_LOSSLESS);
  }
}

}  // namespace
}  // namespace salamander::stream::testing
