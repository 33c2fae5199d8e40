// A worker process as an object: its host, a role, the server that serves it, its registration at the routers.
#ifndef SALAMANDER_COMMON_WORKER_WORKER_H_
#define SALAMANDER_COMMON_WORKER_WORKER_H_

#include <grpcpp/impl/codegen/service_type.h>

#include <atomic>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "common/base/memory_ledger.h"
#include "common/service/server.h"
#include "common/worker/host.h"
#include "common/worker/membership.h"
#include "common/worker/request_table.h"
#include "salamander/v1/cluster.pb.h"

namespace salamander::worker {

// What a worker does for requests: it prefills or it decodes. It uses a Host, which outlives it.
class Role {
 public:
  // No call of its service is under way any more. Ends what is left, and waits for its memory.
  virtual ~Role() = default;
  virtual grpc::Service* service() = 0;
  virtual RequestTableBase& requests() = 0;
  // What only this role says in the messages; the rest is filled in already. A role that is not ready clears `ready`.
  virtual void AddTo(v1::WorkerHello& hello) const = 0;
  virtual void AddTo(v1::Heartbeat& beat) = 0;
  // The other workers are now these, as the routers say.
  virtual void OnPeers(const v1::Peers& peers) = 0;
};

class Worker {
 public:
  // Calling `beat` sends a heartbeat soon, from any thread, as long as the role lives.
  using MakeRole = std::function<absl::StatusOr<std::unique_ptr<Role>>(Host* host, std::function<void()> beat)>;

  // Serving when it returns.
  static absl::StatusOr<std::unique_ptr<Worker>> Start(std::unique_ptr<Host> host, const MakeRole& make_role);
  ~Worker();
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  // For roles beside it that hand items to it.
  Host* host() const { return host_.get(); }
  std::string address() const { return server_->address(); }
  std::string metrics_address() const { return server_->metrics_address(); }
  std::string health_address() const { return server_->health_address(); }
  MemoryLedger::Snapshot memory() const { return host_->ledger().Read(); }
  // Readiness off, no new reservations; returns when running requests ended or the grace is over (they then end), and
  // the router has what there was to say of them. Nothing is served after that.
  void Drain(double grace_seconds);
  // It cannot go on: every request ends with UNAVAILABLE and `why`. Returns when all that was told is under way to the
  // routers, or after a second.
  void Abort(const absl::Status& why);

 private:
  explicit Worker(std::unique_ptr<Host> host) : host_(std::move(host)) {}
  absl::Status Init(const MakeRole& make_role);
  v1::WorkerHello Hello() const;
  v1::Heartbeat Heartbeat();

  const std::unique_ptr<Host> host_;
  Membership membership_;
  std::atomic<bool> draining_{false};
  std::atomic<bool> leaving_{false};  // draining, and not because it failed
  std::unique_ptr<Role> role_;
  std::unique_ptr<service::Server> server_;
};

}  // namespace salamander::worker

#endif  // SALAMANDER_COMMON_WORKER_WORKER_H_
