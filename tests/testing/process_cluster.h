// A cluster of the real programs, each its own process, over UCX on loopback.
#ifndef SALAMANDER_TESTS_TESTING_PROCESS_CLUSTER_H_
#define SALAMANDER_TESTS_TESTING_PROCESS_CLUSTER_H_

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "tests/testing/child_process.h"
#include "tests/testing/cluster.h"

namespace salamander::testing {

// Main thread only, as ChildProcess.
class ProcessCluster final : public Cluster {
 public:
  // Ready when it returns.
  static absl::StatusOr<std::unique_ptr<ProcessCluster>> Start(const ClusterOptions& options);
  // Kills all. If the test has failed, the ends of all logs go to stderr.
  ~ProcessCluster() override;

  std::string router_address(int router = 0) const override;
  // By the metrics of each.
  absl::StatusOr<std::map<std::string, Ledger>> Ledgers() override;

  // A process by name: "router-0", "prefill-1", "decode-0".
  struct Process {
    std::unique_ptr<ChildProcess> child;
    std::string address;
    std::string metrics_address;
    std::string health_address;  // with --health_listen
  };
  const std::map<std::string, Process>& processes() const { return processes_; }
  const Process& process(const std::string& name) const { return processes_.at(name); }
  // SIGKILL; returns when it is gone.
  void Kill(const std::string& name);
  // Starts one that was killed or has ended: a worker under the same name, a router at the same address. Does not wait
  // until it is ready.
  absl::Status Restart(const std::string& name);
  // SIGTERM; the exit code, when it has ended within `seconds`.
  absl::StatusOr<int> Terminate(const std::string& name, double seconds);
  // One worker with another checkpoint and name, not part of the cluster. Of flags given twice the last counts:
  // `flags`.
  absl::StatusOr<std::unique_ptr<ChildProcess>> StartStranger(const std::string& role, const std::string& name,
                                                              const std::string& model,
                                                              const std::vector<std::string>& flags = {});

 private:
  explicit ProcessCluster(ClusterOptions options) : options_(std::move(options)) {}
  int live_workers() const override;
  int live_routers() const override;
  std::vector<std::string> RouterArguments(int router, const std::string& listen) const;
  std::vector<std::string> WorkerArguments(const std::string& name, const std::string& model) const;
  absl::Status StartAll();
  absl::Status Begin(const std::string& name, const std::string& listen);
  // Reads the addresses it prints.
  absl::Status AwaitAddresses(const std::string& name);

  const ClusterOptions options_;
  std::string log_dir_;
  std::vector<std::string> router_addresses_;  // also of those that are down
  std::map<std::string, Process> processes_;
};

}  // namespace salamander::testing

#endif  // SALAMANDER_TESTS_TESTING_PROCESS_CLUSTER_H_
