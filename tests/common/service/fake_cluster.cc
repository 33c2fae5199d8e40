#include "tests/common/service/fake_cluster.h"

#include <algorithm>
#include <chrono>
#include <deque>
#include <utility>

#include "common/service/grpc_status.h"

namespace salamander::testing {

class FakeCluster::Stream final : public grpc::ServerBidiReactor<v1::WorkerMessage, v1::RouterMessage> {
 public:
  explicit Stream(FakeCluster* cluster) : cluster_(cluster) { StartRead(&read_); }

  // Under the cluster's mutex.
  void Send(v1::RouterMessage message) {
    queue_.push_back(std::move(message));
    if (queue_.size() == 1) StartWrite(&queue_.front());
  }

  void OnReadDone(bool ok) override {
    std::lock_guard lock(cluster_->mutex_);
    if (!ok) return End(absl::UnavailableError("the worker left"));
    if (read_.has_hello()) {
      cluster_->seen_.hellos.push_back(read_.hello());
      if (!cluster_->options_.refuse.ok()) return End(cluster_->options_.refuse);
      if (!cluster_->options_.silent) Send(Welcome());
    } else {
      cluster_->seen_.beats.push_back(read_.heartbeat());
    }
    cluster_->changed_.notify_all();
    StartRead(&read_);
  }
  void OnWriteDone(bool ok) override {
    std::lock_guard lock(cluster_->mutex_);
    queue_.pop_front();
    if (ok && !queue_.empty()) StartWrite(&queue_.front());
  }
  void OnDone() override {
    {
      std::lock_guard lock(cluster_->mutex_);
      std::erase(cluster_->streams_, this);
      ++cluster_->seen_.ended;
      cluster_->changed_.notify_all();
    }
    delete this;
  }

 private:
  v1::RouterMessage Welcome() const {
    v1::RouterMessage message;
    message.mutable_welcome()->set_heartbeat_seconds(cluster_->options_.heartbeat_seconds);
    message.mutable_welcome()->set_router_version("fake");
    return message;
  }
  void End(const absl::Status& status) {
    if (!std::exchange(finished_, true)) Finish(service::ToGrpc(status));
  }

  FakeCluster* cluster_;
  v1::WorkerMessage read_;
  std::deque<v1::RouterMessage> queue_;
  bool finished_ = false;
};

FakeCluster::FakeCluster(Options options) : options_(std::move(options)) {
  server_ = service::Server::Start({.listen = options_.listen, .metrics_listen = ""}, &metrics_, {this}).value();
}

FakeCluster::~FakeCluster() { server_.reset(); }

grpc::ServerBidiReactor<v1::WorkerMessage, v1::RouterMessage>* FakeCluster::Register(
    grpc::CallbackServerContext* context) {
  std::lock_guard lock(mutex_);
  ++seen_.streams;
  const grpc::string_ref authority = context->ExperimentalGetAuthority();
  seen_.authority.assign(authority.data(), authority.size());
  changed_.notify_all();
  return streams_.emplace_back(new Stream(this));
}

void FakeCluster::SendPeers(const std::vector<uint64_t>& instances) {
  v1::RouterMessage message;
  message.mutable_peers();
  for (const uint64_t instance : instances) message.mutable_peers()->add_peers()->set_instance_id(instance);
  std::lock_guard lock(mutex_);
  for (Stream* stream : streams_) stream->Send(message);
}

bool FakeCluster::WaitFor(const std::function<bool(const Seen&)>& condition) {
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, std::chrono::seconds(10), [&] { return condition(seen_); });
}

}  // namespace salamander::testing
