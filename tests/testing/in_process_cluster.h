// Routers and workers as objects of this process: what sanitizers can look into, and what a network with faults needs.
#ifndef SALAMANDER_TESTS_TESTING_IN_PROCESS_CLUSTER_H_
#define SALAMANDER_TESTS_TESTING_IN_PROCESS_CLUSTER_H_

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/transport/fake_transport.h"
#include "decode_worker/decode_worker.h"
#include "prefill_worker/prefill_worker.h"
#include "router/router.h"
#include "tests/testing/cluster.h"

namespace salamander::testing {

class InProcessCluster final : public Cluster {
 public:
  // Ready when it returns. With `faults` over a fake network that makes them, otherwise over UCX on loopback.
  static absl::StatusOr<std::unique_ptr<InProcessCluster>> Start(
      const ClusterOptions& options, std::optional<transport::FakeFaults> faults = std::nullopt);

  std::string router_address(int router = 0) const override { return routers_.at(router)->address(); }
  absl::StatusOr<std::map<std::string, Ledger>> Ledgers() override;

  router::Router& router(int index = 0) { return *routers_.at(index); }
  worker::Worker& prefill(int index) { return *prefill_.at(index); }
  worker::Worker& decode(int index) { return *decode_.at(index); }
  // Only with faults.
  transport::FakeNetwork& network() { return *network_; }

 private:
  int live_workers() const override { return static_cast<int>(prefill_.size() + decode_.size()); }
  int live_routers() const override { return static_cast<int>(routers_.size()); }
  absl::Status StartAll(const ClusterOptions& options);
  absl::Status StartWorkers(const ClusterOptions& options);
  std::unique_ptr<transport::Transport> NewTransport();

  std::unique_ptr<transport::FakeNetwork> network_;
  std::vector<std::unique_ptr<router::Router>> routers_;
  std::vector<std::unique_ptr<worker::Worker>> prefill_;
  std::vector<std::unique_ptr<worker::Worker>> decode_;
};

}  // namespace salamander::testing

#endif  // SALAMANDER_TESTS_TESTING_IN_PROCESS_CLUSTER_H_
