#include "tests/common/worker/played_router.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <set>
#include <utility>

#include "common/service/grpc_status.h"

namespace salamander::testing {
namespace {

using Stream = grpc::ServerReaderWriter<v1::RouterMessage, v1::WorkerMessage>;

}  // namespace

// Synchronous gRPC: one thread a worker, which a test can afford. All streams are written under the mutex.
class PlayedRouter::Service final : public v1::Cluster::Service {
 public:
  explicit Service(absl::Status refuse) : refuse_(std::move(refuse)) {}

  grpc::Status Register(grpc::ServerContext*, Stream* stream) override {
    v1::WorkerMessage message;
    if (!stream->Read(&message) || !message.has_hello()) {
      return {grpc::StatusCode::INVALID_ARGUMENT, "no hello"};
    }
    if (!refuse_.ok()) return service::ToGrpc(refuse_);
    const std::string name = message.hello().name();
    Join(message.hello(), stream);
    while (stream->Read(&message)) {
      std::lock_guard lock(mutex_);
      Worker& worker = workers_[name];
      worker.last = message.heartbeat();
      ++worker.beats;
      changed_.notify_all();
    }
    std::lock_guard lock(mutex_);
    workers_.erase(name);
    streams_.erase(name);
    SendPeers();
    changed_.notify_all();
    return grpc::Status::OK;
  }

  bool WaitFor(const std::function<bool(const Workers&)>& condition) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, std::chrono::seconds(20), [&] { return condition(workers_); });
  }

 private:
  void Join(const v1::WorkerHello& hello, Stream* stream) {
    std::lock_guard lock(mutex_);
    workers_[hello.name()].hello = hello;
    streams_[hello.name()] = stream;
    v1::RouterMessage welcome;
    welcome.mutable_welcome()->set_heartbeat_seconds(0.05);
    stream->Write(welcome);
    SendPeers();
  }

  void SendPeers() {
    for (const auto& [name, stream] : streams_) {
      if (workers_[name].hello.role() != v1::WORKER_ROLE_PREFILL) continue;
      v1::RouterMessage message;
      message.mutable_peers();
      for (const auto& [other, worker] : workers_) {
        if (other == name) continue;
        v1::Peer& peer = *message.mutable_peers()->add_peers();
        peer.set_instance_id(worker.hello.instance_id());
        peer.set_name(other);
        peer.set_transport_address(worker.hello.transport_address());
        peer.set_role(worker.hello.role());
      }
      stream->Write(message);
    }
  }

  const absl::Status refuse_;
  std::mutex mutex_;
  std::condition_variable changed_;
  Workers workers_;
  std::map<std::string, Stream*> streams_;
};

PlayedRouter::PlayedRouter(absl::Status refuse) : service_(std::make_unique<Service>(std::move(refuse))) {
  auto server = service::Server::Start({.listen = "127.0.0.1:0", .metrics_listen = ""}, &metrics_, {service_.get()});
  if (!server.ok()) {
    std::fprintf(stderr, "%s\n", server.status().ToString().c_str());
    std::abort();
  }
  server_ = *std::move(server);
}

PlayedRouter::~PlayedRouter() { server_.reset(); }

bool PlayedRouter::WaitFor(const std::function<bool(const Workers&)>& condition) {
  return service_->WaitFor(condition);
}

bool PlayedRouter::WaitReady(const std::vector<std::string>& names) {
  const size_t peers = names.size() - 1;
  return WaitFor([&](const Workers& workers) {
    return std::all_of(names.begin(), names.end(), [&](const std::string& name) {
      const auto worker = workers.find(name);
      if (worker == workers.end() || !worker->second.last.ready()) return false;
      // A prefill worker may have been ready before the others joined.
      return worker->second.hello.role() != v1::WORKER_ROLE_PREFILL ||
             static_cast<size_t>(worker->second.last.links_size()) == peers;
    });
  });
}

PlayedRouter::Worker PlayedRouter::worker(const std::string& name) {
  Worker found;
  WaitFor([&](const Workers& workers) {
    const auto worker = workers.find(name);
    if (worker != workers.end()) found = worker->second;
    return true;
  });
  return found;
}

}  // namespace salamander::testing
