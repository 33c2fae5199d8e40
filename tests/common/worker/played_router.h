// The router's side of Cluster.Register as tests of workers play it: welcomes everybody, keeps the last heartbeats, and
// tells every prefill worker all peers.
#ifndef SALAMANDER_TESTS_COMMON_WORKER_PLAYED_ROUTER_H_
#define SALAMANDER_TESTS_COMMON_WORKER_PLAYED_ROUTER_H_

#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "common/service/server.h"
#include "salamander/v1/cluster.grpc.pb.h"

namespace salamander::testing {

class PlayedRouter {
 public:
  struct Worker {
    v1::WorkerHello hello;
    v1::Heartbeat last;
    int beats = 0;
  };
  using Workers = std::map<std::string, Worker>;  // by name

  // Refuses every hello with `refuse` unless it is OK.
  explicit PlayedRouter(absl::Status refuse = absl::OkStatus());
  ~PlayedRouter();

  std::string address() const { return server_->address(); }
  // Waits until it holds over the workers registered now; false after 20 s.
  bool WaitFor(const std::function<bool(const Workers&)>& condition);
  // All of these are registered and say they are ready.
  bool WaitReady(const std::vector<std::string>& names);
  Worker worker(const std::string& name);

 private:
  class Service;
  service::Metrics metrics_{"played_router"};
  std::unique_ptr<Service> service_;
  std::unique_ptr<service::Server> server_;
};

}  // namespace salamander::testing

#endif  // SALAMANDER_TESTS_COMMON_WORKER_PLAYED_ROUTER_H_
