// A router and workers as children of this process, from their start to their orderly end.
#ifndef SALAMANDER_CLIENTS_CLI_LOCAL_CLUSTER_H_
#define SALAMANDER_CLIENTS_CLI_LOCAL_CLUSTER_H_

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "clients/cli/child_process.h"
#include "clients/cli/serve_plan.h"
#include "clients/cpp/client.h"

namespace salamander::cli {

enum class ClusterPhase {
  kStartingRouter,
  kStartingWorkers,  // until every one is ready
  kServing,
  kStoppingRouter,   // the router drains; workers still finish its requests
  kStoppingWorkers,  // all children have been told to end
  kStopped,
};
enum class ClusterEvent {
  kRouterServing,
  kAllReady,
  kStopAsked,    // Ctrl-C or SIGTERM; each further one is less patient
  kRouterEnded,  // after it was told to
  kChildFailed,  // ended without having been told to
  kAllEnded,
};
const char* ClusterPhaseName(ClusterPhase phase);
// Where an event leads; the same phase if it means nothing there.
ClusterPhase NextPhase(ClusterPhase phase, ClusterEvent event);

// `salamander serve`. Main thread only.
class LocalCluster {
 public:
  // `security` is SecurityOf(options). `bin_dir`: where the programs are. `verbose`: children's lines go to stderr,
  // each after its child's name.
  LocalCluster(ServeOptions options, service::Security security, std::string bin_dir, bool verbose);
  ~LocalCluster();

  // Starts everything, prints addresses and then "ready HOST:PORT" to stdout, and serves until SIGINT or SIGTERM (then
  // OK) or until a child fails (then its last words are in the message). No child is left when it returns.
  absl::Status Run();

 private:
  struct Child {
    std::unique_ptr<ChildProcess> process;
    std::string address;  // once it serves
    std::string metrics_address;
  };

  absl::Status Start(const ChildPlan& plan);
  absl::Status StartWorkers();
  // Waits for signals, output or the next moment to look, and handles what came.
  absl::Status Step(int signals);
  void HandleSignals(int signals);
  void HandleLine(Child& child, const std::string& line);
  void ReapChildren();
  void Happened(ClusterEvent event);
  void EnterPhase();
  // Asks the router whether all workers are ready.
  bool AllReady();
  void PrintReady() const;
  int PollMilliseconds() const;
  void SignalAll(int signal_number);

  ServeOptions options_;
  const service::Security security_;
  std::string bin_dir_;
  bool verbose_;
  ClusterPhase phase_ = ClusterPhase::kStartingRouter;
  std::vector<Child> children_;  // the router first
  std::optional<client::Client> client_;
  double kill_at_ = 0;  // when stopping: children that still run by then are killed
  absl::Status failure_;
};

}  // namespace salamander::cli

#endif  // SALAMANDER_CLIENTS_CLI_LOCAL_CLUSTER_H_
