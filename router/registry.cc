#include "router/registry.h"

#include "absl/strings/str_cat.h"
#include "common/base/log.h"
#include "common/base/status_macros.h"
#include "router/hello_checks.h"

namespace salamander::router {
namespace {

// Two beats are missed when the second is half an interval late: busy machines are not exact to the second.
constexpr double kBeatsUntilGone = 2.5;

std::string Describe(const v1::WorkerHello& hello) {
  return absl::StrCat(RoleName(hello.role()), " worker ", hello.name(), " (instance ", IdToString(hello.instance_id()),
                      ", ", hello.grpc_address(), ")");
}

}  // namespace

Registry::LoadHold& Registry::LoadHold::operator=(LoadHold&& other) noexcept {
  if (this == &other) return *this;
  Return();
  registry_ = std::exchange(other.registry_, nullptr);
  worker_ = std::move(other.worker_);
  tokens_ = std::exchange(other.tokens_, 0);
  bytes_ = std::exchange(other.bytes_, 0);
  return *this;
}

void Registry::LoadHold::FinishTokens(int64_t tokens) {
  if (registry_ == nullptr) return;
  tokens = std::min(tokens, tokens_);
  tokens_ -= tokens;
  registry_->Adjust(worker_.get(), 0, -tokens, 0);
}

void Registry::LoadHold::Return() {
  if (registry_ != nullptr) registry_->Adjust(worker_.get(), -1, -tokens_, -bytes_);
  registry_ = nullptr;
}

Registry::Registry(Options options, const Clock* clock,
                   std::function<std::shared_ptr<WorkerClient>(const std::string& address)> make_client)
    : options_(std::move(options)), clock_(clock), make_client_(std::move(make_client)) {}

absl::Status Registry::Add(const v1::WorkerHello& hello, const std::shared_ptr<WorkerLink>& link) {
  RETURN_IF_ERROR(CheckHello(hello));
  RETURN_IF_ERROR(CheckModel(hello, options_.model_fingerprint));
  {
    std::lock_guard lock(mutex_);
    for (const auto& [instance, worker] : workers_) RETURN_IF_ERROR(CheckAgainst(hello, *worker.hello));
    Worker& worker = workers_[hello.instance_id()];
    if (worker.link != nullptr) worker.link->Close(absl::AbortedError("replaced by a newer stream of this worker"));
    if (worker.hello == nullptr || worker.hello->grpc_address() != hello.grpc_address()) {
      worker.client = make_client_(hello.grpc_address());
    }
    worker.hello = std::make_shared<v1::WorkerHello>(hello);
    worker.link = link;
    worker.heard = worker.ready_at = clock_->Now();
    worker.last = std::make_shared<v1::Heartbeat>();

    v1::RouterMessage welcome;
    welcome.mutable_welcome()->set_heartbeat_seconds(options_.heartbeat_seconds);
    welcome.mutable_welcome()->set_router_version(options_.router_version);
    link->Send(std::move(welcome));
    SendPeers();
  }
  Log(LogLevel::kInfo, absl::StrCat(Describe(hello), " joined, version ", hello.build_version(), ", ",
                                    hello.request_memory_bytes(), " bytes for requests"));
  on_change_();
  return absl::OkStatus();
}

void Registry::Beat(InstanceId instance, const WorkerLink* link, const v1::Heartbeat& heartbeat) {
  {
    std::lock_guard lock(mutex_);
    auto found = workers_.find(instance);
    if (found == workers_.end() || found->second.link.get() != link) return;
    Worker& worker = found->second;
    if (worker.last->ready() != heartbeat.ready()) {
      Log(LogLevel::kInfo, absl::StrCat(Describe(*worker.hello), heartbeat.ready() ? " is ready" : " is not ready"));
    }
    worker.last = std::make_shared<v1::Heartbeat>(heartbeat);
    worker.heard = clock_->Now();
    if (heartbeat.ready()) worker.ready_at = worker.heard;
    worker.load->bytes_since_beat = 0;
  }
  on_change_();
}

void Registry::Remove(InstanceId instance, const WorkerLink* link, const std::string& reason) {
  {
    std::lock_guard lock(mutex_);
    auto found = workers_.find(instance);
    if (found == workers_.end() || found->second.link.get() != link) return;
    Log(LogLevel::kWarning, absl::StrCat(Describe(*found->second.hello), " is gone: ", reason));
    Drop(found, absl::AbortedError(reason));
  }
  on_gone_(instance, reason);
  on_change_();
}

void Registry::Expire() {
  const double limit = kBeatsUntilGone * options_.heartbeat_seconds;
  std::vector<std::pair<InstanceId, std::string>> gone;
  {
    std::lock_guard lock(mutex_);
    for (auto it = workers_.begin(); it != workers_.end();) {
      auto worker = it++;
      const double silent = clock_->Now() - worker->second.heard;
      if (silent <= limit) continue;
      const std::string reason = absl::StrCat("no heartbeat for ", silent, " s, the limit is ", limit, " s");
      Log(LogLevel::kWarning, absl::StrCat(Describe(*worker->second.hello), " is gone: ", reason));
      gone.emplace_back(worker->first, reason);
      Drop(worker, absl::DeadlineExceededError(reason));
    }
  }
  for (const auto& [instance, reason] : gone) on_gone_(instance, reason);
  if (!gone.empty()) on_change_();
}

void Registry::CloseLinks(const absl::Status& status) {
  std::lock_guard lock(mutex_);
  closing_ = true;
  for (const auto& [instance, worker] : workers_) worker.link->Close(status);
}

void Registry::Drop(std::map<InstanceId, Worker>::iterator worker, const absl::Status& closing) {
  worker->second.link->Close(closing);
  if (!closing_ && !worker->second.last->draining()) ++lost_[worker->second.hello->role()];
  workers_.erase(worker);
  SendPeers();
}

void Registry::SendPeers() const {
  for (const auto& [instance, worker] : workers_) {
    if (worker.hello->role() == v1::WORKER_ROLE_PREFILL) worker.link->Send(PeersOf(worker));
  }
}

v1::RouterMessage Registry::PeersOf(const Worker& worker) const {
  v1::RouterMessage message;
  v1::Peers* peers = message.mutable_peers();
  for (const auto& [instance, other] : workers_) {
    if (&other == &worker) continue;
    v1::Peer* peer = peers->add_peers();
    peer->set_instance_id(instance);
    peer->set_name(other.hello->name());
    peer->set_transport_address(other.hello->transport_address());
    peer->set_role(other.hello->role());
  }
  return message;
}

std::vector<WorkerView> Registry::Workers() const {
  std::vector<WorkerView> views;
  {
    std::lock_guard lock(mutex_);
    const double now = clock_->Now();
    for (const auto& [instance, worker] : workers_) {
      views.push_back({.hello = worker.hello,
                       .last = worker.last,
                       .seconds_since_heartbeat = now - worker.heard,
                       .seconds_unready = worker.last->ready() ? 0 : now - worker.ready_at,
                       .running_requests = worker.load->requests,
                       .outstanding_tokens = worker.load->tokens,
                       .free_memory_bytes = worker.last->free_memory_bytes() - worker.load->bytes_since_beat,
                       .client = worker.client});
    }
  }
  std::sort(views.begin(), views.end(),
            [](const WorkerView& a, const WorkerView& b) { return a.hello->name() < b.hello->name(); });
  return views;
}

bool Registry::HasReady(v1::WorkerRole role) const {
  std::lock_guard lock(mutex_);
  return std::any_of(workers_.begin(), workers_.end(), [role](const auto& entry) {
    return entry.second.hello->role() == role && entry.second.last->ready();
  });
}

int64_t Registry::lost(v1::WorkerRole role) const {
  std::lock_guard lock(mutex_);
  const auto found = lost_.find(role);
  return found == lost_.end() ? 0 : found->second;
}

std::string Registry::model_fingerprint() const {
  if (!options_.model_fingerprint.empty()) return options_.model_fingerprint;
  std::lock_guard lock(mutex_);
  return workers_.empty() ? "" : workers_.begin()->second.hello->model_fingerprint();
}

Registry::LoadHold Registry::Load(InstanceId instance, int64_t tokens, int64_t bytes) {
  LoadHold hold;
  {
    std::lock_guard lock(mutex_);
    auto found = workers_.find(instance);
    if (found == workers_.end()) return hold;
    hold.worker_ = found->second.load;
  }
  hold.registry_ = this;
  hold.tokens_ = tokens;
  hold.bytes_ = bytes;
  Adjust(hold.worker_.get(), 1, tokens, bytes);
  return hold;
}

void Registry::Adjust(WorkerLoad* load, int requests, int64_t tokens, int64_t bytes) {
  std::lock_guard lock(mutex_);
  load->requests += requests;
  load->tokens += tokens;
  load->bytes_since_beat += bytes;
}

}  // namespace salamander::router
