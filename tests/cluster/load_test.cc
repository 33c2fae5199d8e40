// Many requests at once on real processes over UCX.
#include <gtest/gtest.h>

#include "tests/cluster/scenarios.h"
#include "tests/testing/golden.h"
#include "tests/testing/process_cluster.h"

namespace salamander {
namespace {

using testing::ClusterOptions;
using testing::ExpectCancelledRequestsLeaveNothing;
using testing::ExpectSameTogetherAsAlone;
using testing::Golden;
using testing::MixedRequests;
using testing::ProcessCluster;

class ClusterLoadTest : public ::testing::Test {
 protected:
  void Start(int prefill_workers, int decode_workers) {
    ClusterOptions options{.model = golden_.folder,
                           .prefill_workers = prefill_workers,
                           .decode_workers = decode_workers,
                           .routers = {{.span_tokens = 384}}};
    cluster_ = ProcessCluster::Start(options).value();
  }

  const Golden golden_{"crossing"};
  std::unique_ptr<ProcessCluster> cluster_;
};

TEST_F(ClusterLoadTest, ThirtyTwoAtOnceEachGetWhatTheyGetAlone) {
  Start(2, 1);
  ExpectSameTogetherAsAlone(*cluster_, MixedRequests(32, 3000, golden_.vocab_size, 11));
}

TEST_F(ClusterLoadTest, TwoDecodeWorkersShareTheRequests) {
  Start(2, 2);
  ExpectSameTogetherAsAlone(*cluster_, MixedRequests(16, 2000, golden_.vocab_size, 12));
}

TEST_F(ClusterLoadTest, TwoHundredRequestsOfWhichHalfAreCancelled) {
  Start(3, 2);
  ExpectCancelledRequestsLeaveNothing(*cluster_, MixedRequests(200, 3000, golden_.vocab_size, 13), 14);
}

}  // namespace
}  // namespace salamander
