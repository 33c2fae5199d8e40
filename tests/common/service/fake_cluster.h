// The router's side of Cluster.Register as a test plays it: answers each hello, keeps every message, and says or ends
// what the test wants.
#ifndef SALAMANDER_TESTS_COMMON_SERVICE_FAKE_CLUSTER_H_
#define SALAMANDER_TESTS_COMMON_SERVICE_FAKE_CLUSTER_H_

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "common/service/server.h"
#include "salamander/v1/cluster.grpc.pb.h"

namespace salamander::testing {

class FakeCluster final : public v1::Cluster::CallbackService {
 public:
  struct Options {
    std::string listen = "127.0.0.1:0";
    double heartbeat_seconds = 0.05;
    absl::Status refuse;  // not OK: every hello is answered with this
    bool silent = false;  // accepts streams and never answers
  };
  explicit FakeCluster(Options options);
  // As a killed process would: every stream breaks.
  ~FakeCluster() override;

  std::string address() const { return server_->address(); }
  // Sent to every worker registered now.
  void SendPeers(const std::vector<uint64_t>& instances);
  // Waits until `condition` holds over what arrived; false after 10 s.
  struct Seen {
    int streams = 0;  // begun
    int ended = 0;
    std::string authority;  // of the last one begun
    std::vector<v1::WorkerHello> hellos;
    std::vector<v1::Heartbeat> beats;
  };
  bool WaitFor(const std::function<bool(const Seen&)>& condition);

 private:
  class Stream;
  grpc::ServerBidiReactor<v1::WorkerMessage, v1::RouterMessage>* Register(
      grpc::CallbackServerContext* context) override;

  const Options options_;
  service::Metrics metrics_{"fake"};
  std::mutex mutex_;
  std::condition_variable changed_;
  Seen seen_;
  std::vector<Stream*> streams_;
  std::unique_ptr<service::Server> server_;
};

}  // namespace salamander::testing

#endif  // SALAMANDER_TESTS_COMMON_SERVICE_FAKE_CLUSTER_H_
