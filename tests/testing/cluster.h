// A whole cluster under test. Two kinds: in_process_cluster.h (objects, over UCX or a network with faults) and
// process_cluster.h (the real programs). Both listen on free loopback ports.
#ifndef SALAMANDER_TESTS_TESTING_CLUSTER_H_
#define SALAMANDER_TESTS_TESTING_CLUSTER_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/service/channel.h"
#include "salamander/v1/cluster.grpc.pb.h"
#include "salamander/v1/inference.grpc.pb.h"
#include "tests/testing/generate.h"

namespace salamander::testing {

// How one of the cluster's routers differs from the others.
struct RouterVariant {
  int64_t span_tokens = 8192;
  v1::Codec codec = v1::CODEC_LOSSLESS;
};

struct ClusterOptions {
  std::string model;  // checkpoint folder
  int prefill_workers = 2;
  int decode_workers = 1;
  // Several routers serve the same workers at once.
  std::vector<RouterVariant> routers = {RouterVariant()};
  int64_t queue_limit = 256;
  int64_t max_running = 256;
  int max_logprobs = 20;
  double lease_seconds = 5;
  double heartbeat_seconds = 0.5;
  int64_t worker_memory_bytes = int64_t{1} << 30;
  int64_t max_span_tokens = 8192;  // prefill workers: sizes their activations
  double missing_item_seconds = 5;
  std::string capture_dir;  // decode workers
  // In one process: they serve /metrics, which takes each two seconds to stop.
  bool metrics = false;
  // Real programs only: more flags for all of them and for the routers, and how the tests dial routers then.
  std::vector<std::string> flags, router_flags;
  service::ChannelSecurity security;
};

class Cluster {
 public:
  virtual ~Cluster() = default;

  virtual std::string router_address(int router = 0) const = 0;
  v1::Inference::Stub* inference(int router = 0) { return stubs_.at(router).inference.get(); }
  Answer Generate(const v1::GenerateRequest& request, int router = 0) {
    return testing::Generate(inference(router), request);
  }
  absl::StatusOr<v1::GetStatusResponse> Status(int router = 0);

  // Waits until every router sees every live worker ready and all their links connected.
  absl::Status WaitReady(double seconds = 30);

  // By owner, with "free" and "capacity".
  using Ledger = std::map<std::string, int64_t>;
  // Of every live worker, by name.
  virtual absl::StatusOr<std::map<std::string, Ledger>> Ledgers() = 0;
  // Ledgers() when no request holds anything: waits until the last bytes of warming the links are back too.
  absl::StatusOr<std::map<std::string, Ledger>> IdleLedgers(double seconds = 10);
  // Waits until Ledgers() is `expected`, to the byte; otherwise DEADLINE_EXCEEDED telling the first difference.
  absl::Status WaitForLedgers(const std::map<std::string, Ledger>& expected, double seconds);

 protected:
  // After a router has started, also again at another address.
  void ConnectRouter(int router, const std::string& address, const service::ChannelSecurity& security = {});
  virtual int live_workers() const = 0;
  virtual int live_routers() const = 0;

 private:
  struct Stubs {
    std::unique_ptr<v1::Inference::Stub> inference;
    std::unique_ptr<v1::Cluster::Stub> cluster;
  };
  absl::Status CheckReady(int router);
  std::map<int, Stubs> stubs_;
};

}  // namespace salamander::testing

#endif  // SALAMANDER_TESTS_TESTING_CLUSTER_H_
