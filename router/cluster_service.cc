#include "router/cluster_service.h"

#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>

#include "common/service/grpc_status.h"
#include "router/write_queue.h"

namespace salamander::router {
namespace {

// One worker's registration. Keeps itself alive until gRPC is done with it; the registry may hold it longer.
class RegisterReactor final : public grpc::ServerBidiReactor<v1::WorkerMessage, v1::RouterMessage>,
                              public WorkerLink,
                              public std::enable_shared_from_this<RegisterReactor> {
 public:
  static RegisterReactor* Start(Registry* registry) {
    auto reactor = std::make_shared<RegisterReactor>(registry);
    reactor->self_ = reactor;
    reactor->StartRead(&reactor->message_);
    return reactor.get();
  }
  explicit RegisterReactor(Registry* registry) : registry_(registry) {}

  void Send(v1::RouterMessage message) override {
    std::lock_guard lock(mutex_);
    if (finish_.has_value()) return;
    if (const v1::RouterMessage* next = writes_.Push(std::move(message))) StartWrite(next);
  }

  void Close(absl::Status status) override {
    std::lock_guard lock(mutex_);
    if (finish_.has_value()) return;
    finish_ = service::ToGrpc(status);
    writes_.DropWaiting();
    if (writes_.empty()) Finish(*finish_);
  }

 private:
  void OnReadDone(bool ok) override {
    if (!ok) return Leave(absl::OkStatus(), "the worker ended its registration");
    if (absl::Status status = Handle(); !status.ok()) return Leave(status, std::string(status.message()));
    message_.Clear();
    std::lock_guard lock(mutex_);
    if (!finish_.has_value()) StartRead(&message_);
  }

  absl::Status Handle() {
    if (instance_ == 0) {
      if (!message_.has_hello()) return absl::InvalidArgumentError("the first message of Register must be hello");
      absl::Status added = registry_->Add(message_.hello(), shared_from_this());
      if (added.ok()) instance_ = message_.hello().instance_id();
      return added;
    }
    if (message_.has_hello()) return absl::InvalidArgumentError("a second hello on one Register stream");
    if (message_.has_heartbeat()) registry_->Beat(instance_, this, message_.heartbeat());
    return absl::OkStatus();
  }

  void Leave(const absl::Status& status, const std::string& reason) {
    Close(status);  // First: the registry closes its links too, and the first status counts.
    if (instance_ != 0) registry_->Remove(instance_, this, reason);
  }

  void OnWriteDone(bool ok) override {
    std::lock_guard lock(mutex_);
    if (!ok) writes_.DropWaiting();
    if (const v1::RouterMessage* next = writes_.Pop()) {
      StartWrite(next);
    } else if (finish_.has_value()) {
      Finish(*finish_);
    }
  }

  // A read is always pending until the stream ends, and fails then: OnReadDone does what there is to do.
  void OnCancel() override {}
  void OnDone() override { self_ = nullptr; }

  Registry* const registry_;
  std::shared_ptr<RegisterReactor> self_;
  v1::WorkerMessage message_;
  InstanceId instance_ = 0;  // set by the hello; reads come one at a time

  std::mutex mutex_;
  WriteQueue<v1::RouterMessage> writes_;
  std::optional<grpc::Status> finish_;  // to be sent once the write in flight is done
};

}  // namespace

grpc::ServerBidiReactor<v1::WorkerMessage, v1::RouterMessage>* ClusterService::Register(
    grpc::CallbackServerContext* call) {
  if (absl::Status member = gate_->Check(*call, "Register"); !member.ok()) {
    return new service::RefusedStream<v1::WorkerMessage, v1::RouterMessage>(service::ToGrpc(member));
  }
  return RegisterReactor::Start(registry_);
}

grpc::ServerUnaryReactor* ClusterService::GetStatus(grpc::CallbackServerContext* call, const v1::GetStatusRequest*,
                                                    v1::GetStatusResponse* response) {
  grpc::ServerUnaryReactor* reactor = call->DefaultReactor();
  const absl::Status allowed = gate_->HasToken(*call) ? absl::OkStatus() : authenticate_(*call);
  if (!allowed.ok()) {
    reactor->Finish(service::ToGrpc(allowed));
    return reactor;
  }
  describe_(response);
  for (const WorkerView& view : registry_->Workers()) {
    v1::WorkerStatus* worker = response->add_workers();
    worker->set_role(view.hello->role());
    worker->set_name(view.hello->name());
    worker->set_instance_id(view.hello->instance_id());
    worker->set_grpc_address(view.hello->grpc_address());
    worker->set_build_version(view.hello->build_version());
    *worker->mutable_last() = *view.last;
    worker->set_seconds_since_heartbeat(view.seconds_since_heartbeat);
    worker->set_running_requests(view.running_requests);
    worker->set_transport_name(view.hello->transport_name());
  }
  reactor->Finish(grpc::Status::OK);
  return reactor;
}

}  // namespace salamander::router
