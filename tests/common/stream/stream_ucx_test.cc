// Publisher and receiver over UCX, in one process.
#include <gtest/gtest.h>

#include "common/transport/ucx_transport.h"
#include "tests/common/stream/stream_cluster.h"

namespace salamander::stream::testing {
namespace {

const LayerKinds kLayers{false, true, true, false};

std::unique_ptr<transport::Transport> CreateUcx() {
  auto transport = transport::CreateUcxTransport({.net_devices = "lo"});
  EXPECT_TRUE(transport.ok()) << transport.status();
  return *std::move(transport);
}

TEST(StreamOverUcx, FillsEveryManifestOfManyPlans) {
  std::mt19937_64 random(5);
  for (int workers : {1, 3, 5}) {
    Cluster cluster(workers, CreateUcx);
    // Several requests at once, each with its own plan and codec.
    struct Request {
      v1::Plan plan;
      std::map<int, std::unique_ptr<Leg>> legs;
      std::map<ItemId, std::vector<std::byte>> content;
    };
    std::vector<Request> requests(6);
    Outcomes outcomes;
    for (size_t i = 0; i < requests.size(); ++i) {
      Request& request = requests[i];
      request.plan = RandomPlan(random, workers, i % 2 == 0 ? v1::CODEC_RAW : v1::CODEC_LOSSLESS);
      request.legs = cluster.Subscribe(i, request.plan, kLayers);
      cluster.PublishAll(i, request.plan, kLayers, request.legs, outcomes, request.content);
    }
    for (const absl::Status& status : outcomes.Wait()) EXPECT_TRUE(status.ok()) << status;
    for (Request& request : requests) {
      for (auto& [worker, leg] : request.legs) {
        ASSERT_TRUE(leg->WaitComplete()) << leg->subscription->status();
        for (const auto& [id, bytes] : leg->memory) EXPECT_TRUE(bytes == request.content[id]) << ItemName(id);
      }
      request.legs.clear();
    }
    for (auto& node : cluster.nodes) {
      EXPECT_EQ(node->publisher->outstanding_bytes(), 0);
      EXPECT_EQ(node->ledger.Read().free, node->ledger.Read().capacity);
      EXPECT_EQ(node->stats.refused_unknown + node->stats.refused_duplicate + node->stats.refused_malformed, 0);
    }
  }
}

TEST(StreamOverUcx, PeerThatGoesAwayFailsSendsByName) {
  auto from = std::make_unique<Node>(CreateUcx()), to = std::make_unique<Node>(CreateUcx());
  ASSERT_TRUE(Connect(*from, *to).ok());
  ASSERT_EQ(from->publisher->links().size(), 1);
  EXPECT_TRUE(from->publisher->links()[0].connected);
  EXPECT_GT(from->publisher->links()[0].bytes_per_second, 0);
  const InstanceId peer = to->instance;
  to.reset();
  const std::vector<std::byte> bytes(1 << 20);
  Outcomes outcomes;
  PublishedItem item{7, {v1::ITEM_KIND_STATE, 3, 2}, {v1::ELEMENT_TYPE_FLOAT32, 1024}, v1::CODEC_RAW, {{bytes}}, {}};
  item.destinations.push_back({peer, 1, "any"});
  from->publisher->Publish(item, outcomes.Expect());
  const absl::Status status = outcomes.Wait().at(0);
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_NE(status.message().find("request 0000000000000007: state of layer 3, span 2, to " + IdToString(peer)),
            absl::string_view::npos)
      << status;
}

}  // namespace
}  // namespace salamander::stream::testing
