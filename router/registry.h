// The workers that are alive, what they last said, and what this router has put on them.
//
//   Registry registry(options, &RealClock(), make_client);
//   registry.set_on_gone(…); registry.set_on_change(…);
//   RETURN_IF_ERROR(registry.Add(hello, link));      // a Register stream's first message
//   registry.Beat(instance, link, heartbeat);        // its later ones
//   registry.Expire();                               // every now and then
//
// Any thread. The two callbacks run without the registry's lock; links are called under it, so that messages keep the
// order of the changes they tell of, and must not call back.
#ifndef SALAMANDER_ROUTER_REGISTRY_H_
#define SALAMANDER_ROUTER_REGISTRY_H_

#include <algorithm>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "common/base/clock.h"
#include "common/base/ids.h"
#include "router/worker_client.h"
#include "salamander/v1/cluster.pb.h"

namespace salamander::router {

// The stream to one worker. Any thread; a link whose stream has ended ignores both calls.
class WorkerLink {
 public:
  virtual ~WorkerLink() = default;
  virtual void Send(v1::RouterMessage message) = 0;
  // Ends the stream with this status.
  virtual void Close(absl::Status status) = 0;
};

// One worker at one moment.
struct WorkerView {
  std::shared_ptr<const v1::WorkerHello> hello;
  std::shared_ptr<const v1::Heartbeat> last;  // an empty one before the first
  double seconds_since_heartbeat = 0;
  // 0 while it is ready; else since it was, or since it joined.
  double seconds_unready = 0;
  // This router's own requests on it, and their prompt tokens that it has not finished.
  int64_t running_requests = 0;
  int64_t outstanding_tokens = 0;
  // What it last reported, less what was put on it since, plus what was taken off.
  int64_t free_memory_bytes = 0;
  std::shared_ptr<WorkerClient> client;

  // Outstanding tokens of all routers, as far as this one knows.
  int64_t load_tokens() const { return std::max(outstanding_tokens, last->queued_tokens()); }
};

class Registry {
 public:
  struct Options {
    // Of the router's own checkpoint; empty: the live workers' is the cluster's.
    std::string model_fingerprint;
    double heartbeat_seconds = 1;
    std::string router_version;
  };

  // What this router has put on one worker. Guarded by the registry's lock; outlives the worker's membership, so that
  // what a request takes off is what it put on, even if the worker left and came back.
  struct WorkerLoad {
    int64_t requests = 0;
    int64_t tokens = 0;
    int64_t bytes_since_beat = 0;
  };

  // One request's part of a worker's load; taken off when destroyed. Must not outlive the registry. The worker may be
  // gone by then. Calls on one object come from one thread at a time.
  class LoadHold {
   public:
    LoadHold() = default;
    LoadHold(LoadHold&& other) noexcept { *this = std::move(other); }
    LoadHold& operator=(LoadHold&& other) noexcept;
    ~LoadHold() { Return(); }
    // So many of its tokens are done.
    void FinishTokens(int64_t tokens);

   private:
    friend class Registry;
    void Return();
    Registry* registry_ = nullptr;
    std::shared_ptr<WorkerLoad> worker_;
    int64_t tokens_ = 0;
    int64_t bytes_ = 0;
  };

  // `make_client` is called with the worker's gRPC address.
  Registry(Options options, const Clock* clock,
           std::function<std::shared_ptr<WorkerClient>(const std::string& address)> make_client);

  // Both are set before the first worker and stay.
  // A worker left, for the reason given: requests on it have to end.
  void set_on_gone(std::function<void(InstanceId, const std::string& reason)> on_gone) {
    on_gone_ = std::move(on_gone);
  }
  // A worker joined, left or beat: a queued request may be possible now.
  void set_on_change(std::function<void()> on_change) { on_change_ = std::move(on_change); }

  // How many workers of that role went without having said that they drain.
  int64_t lost(v1::WorkerRole role) const;
  // Checks the hello (hello_checks.h), greets the worker and tells the prefill workers of their new peer. The same
  // instance again, after a broken connection, replaces its link and keeps its requests.
  absl::Status Add(const v1::WorkerHello& hello, const std::shared_ptr<WorkerLink>& link);
  // Ignored unless `link` is the instance's present one; so is Remove.
  void Beat(InstanceId instance, const WorkerLink* link, const v1::Heartbeat& heartbeat);
  void Remove(InstanceId instance, const WorkerLink* link, const std::string& reason);
  // Drops the workers that have missed two beats.
  void Expire();
  // Closes all links, without declaring the workers gone.
  void CloseLinks(const absl::Status& status);

  // In order of name.
  std::vector<WorkerView> Workers() const;
  bool HasReady(v1::WorkerRole role) const;
  // Of this router's checkpoint, else of a live worker; empty if there is neither.
  std::string model_fingerprint() const;

  // Counts `tokens` of prefill work and `bytes` of memory on the worker.
  LoadHold Load(InstanceId instance, int64_t tokens, int64_t bytes);

 private:
  struct Worker {
    std::shared_ptr<const v1::WorkerHello> hello;
    std::shared_ptr<WorkerLink> link;
    std::shared_ptr<WorkerClient> client;
    std::shared_ptr<const v1::Heartbeat> last;
    double heard = 0;
    double ready_at = 0;  // when it was ready last, or joined
    std::shared_ptr<WorkerLoad> load = std::make_shared<WorkerLoad>();
  };

  // The three below are called under the lock.
  void Drop(std::map<InstanceId, Worker>::iterator worker, const absl::Status& closing);
  // Tells every prefill worker its peers: all other prefill workers and all decode workers.
  void SendPeers() const;
  v1::RouterMessage PeersOf(const Worker& worker) const;
  // Takes the lock.
  void Adjust(WorkerLoad* load, int requests, int64_t tokens, int64_t bytes);

  const Options options_;
  const Clock* const clock_;
  const std::function<std::shared_ptr<WorkerClient>(const std::string&)> make_client_;
  std::function<void(InstanceId, const std::string&)> on_gone_ = [](InstanceId, const std::string&) {};
  std::function<void()> on_change_ = [] {};

  mutable std::mutex mutex_;
  std::map<InstanceId, Worker> workers_;
  std::map<v1::WorkerRole, int64_t> lost_;
  bool closing_ = false;
};

}  // namespace salamander::router

#endif  // SALAMANDER_ROUTER_REGISTRY_H_
