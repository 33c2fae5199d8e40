// What a bad network does to a request: late, mixed up and repeated items change nothing; damaged and lost ones end it
// with an error that names them, before anything was decoded.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <string_view>

#include "salamander/v1/stream.pb.h"
#include "tests/testing/golden.h"
#include "tests/testing/in_process_cluster.h"

namespace salamander {
namespace {

using testing::Answer;
using testing::CheckAnswer;
using testing::ClusterOptions;
using testing::Golden;
using ::testing::HasSubstr;
using testing::InProcessCluster;
using transport::FakeFaults;

class ClusterFaultsTest : public ::testing::Test {
 protected:
  // Three prefill workers and spans of 128, so that most items have several destinations.
  void Start(FakeFaults faults) {
    ClusterOptions options{.model = golden_.folder, .prefill_workers = 3, .routers = {{.span_tokens = 128}}};
    options.max_logprobs = golden_.vocab_size;
    options.missing_item_seconds = 1;
    options.max_span_tokens = 1024;
    cluster_ = InProcessCluster::Start(options, std::move(faults)).value();
    idle_ = cluster_->IdleLedgers().value();
  }
  void ExpectOraclesAnswer() {
    for (int round = 0; round < 3; ++round) {
      EXPECT_EQ(CheckAnswer(golden_, cluster_->Generate(golden_.Request(true)), 1e-3), absl::OkStatus());
    }
    EXPECT_EQ(cluster_->WaitForLedgers(idle_, 10), absl::OkStatus());
  }
  void ExpectDataLoss(const std::string& item) {
    const Answer answer = cluster_->Generate(golden_.Request(true));
    EXPECT_EQ(answer.status.code(), absl::StatusCode::kDataLoss) << answer.status;
    EXPECT_THAT(std::string(answer.status.message()), HasSubstr(item));
    EXPECT_TRUE(answer.tokens.empty());
    EXPECT_EQ(cluster_->WaitForLedgers(idle_, 10), absl::OkStatus());
  }

  const Golden golden_{"odd"};
  std::unique_ptr<InProcessCluster> cluster_;
  std::map<std::string, testing::Cluster::Ledger> idle_;
};

// Restricts faults to items of one kind and layer.
std::function<bool(std::string_view)> Only(v1::ItemKind kind, int layer) {
  return [kind, layer](std::string_view bytes) {
    v1::ItemHeader header;
    return header.ParseFromArray(bytes.data(), static_cast<int>(bytes.size())) && header.kind() == kind &&
           header.layer() == layer;
  };
}
// Everything but the messages that warm the links.
bool IsItem(std::string_view bytes) {
  v1::ItemHeader header;
  return header.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()));
}

TEST_F(ClusterFaultsTest, NoFaults) {
  Start({});
  ExpectOraclesAnswer();
}

TEST_F(ClusterFaultsTest, Delayed) {
  Start({.seed = 1, .delay = 0.5, .max_delay_seconds = 0.05, .only = IsItem});
  ExpectOraclesAnswer();
  EXPECT_GT(cluster_->network().counts().delayed, 10);
}

TEST_F(ClusterFaultsTest, Reordered) {
  Start({.seed = 2, .reorder = true, .only = IsItem});
  ExpectOraclesAnswer();
}

TEST_F(ClusterFaultsTest, Duplicated) {
  Start({.seed = 3, .duplicate = 0.5, .only = IsItem});
  ExpectOraclesAnswer();
  EXPECT_GT(cluster_->network().counts().duplicated, 10);
}

TEST_F(ClusterFaultsTest, AllThreeAtOnce) {
  Start({.seed = 4, .duplicate = 0.3, .delay = 0.3, .max_delay_seconds = 0.03, .reorder = true, .only = IsItem});
  ExpectOraclesAnswer();
}

TEST_F(ClusterFaultsTest, CorruptedKeysAndValues) {
  Start({.seed = 5, .corrupt = 1, .only = Only(v1::ITEM_KIND_KEYS_VALUES, 3)});
  ExpectDataLoss("keys-values of layer 3");
}

TEST_F(ClusterFaultsTest, CorruptedState) {
  Start({.seed = 6, .corrupt = 1, .only = Only(v1::ITEM_KIND_STATE, 4)});
  ExpectDataLoss("state of layer 4");
}

TEST_F(ClusterFaultsTest, CorruptedHidden) {
  Start({.seed = 7, .corrupt = 1, .only = Only(v1::ITEM_KIND_HIDDEN, 0)});
  ExpectDataLoss("hidden");
}

TEST_F(ClusterFaultsTest, LostKeysAndValues) {
  Start({.seed = 8, .drop = 1, .only = Only(v1::ITEM_KIND_KEYS_VALUES, 0)});
  ExpectDataLoss("keys-values of layer 0");
}

TEST_F(ClusterFaultsTest, LostState) {
  Start({.seed = 9, .drop = 1, .only = Only(v1::ITEM_KIND_STATE, 5)});
  ExpectDataLoss("state of layer 5");
}

TEST_F(ClusterFaultsTest, LostHidden) {
  Start({.seed = 10, .drop = 1, .only = Only(v1::ITEM_KIND_HIDDEN, 0)});
  ExpectDataLoss("hidden");
}

}  // namespace
}  // namespace salamander
