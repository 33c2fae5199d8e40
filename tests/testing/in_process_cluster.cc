#include "tests/testing/in_process_cluster.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/memory_ledger.h"
#include "common/base/status_macros.h"

namespace salamander::testing {
namespace {

Cluster::Ledger ToLedger(const MemoryLedger::Snapshot& snapshot) {
  Cluster::Ledger ledger = {{"free", snapshot.free}, {"capacity", snapshot.capacity}};
  for (int owner = 0; owner < kMemoryOwners; ++owner) {
    ledger[std::string(MemoryOwnerName(static_cast<MemoryOwner>(owner)))] = snapshot.held[owner];
  }
  return ledger;
}

}  // namespace

absl::StatusOr<std::unique_ptr<InProcessCluster>> InProcessCluster::Start(const ClusterOptions& options,
                                                                          std::optional<transport::FakeFaults> faults) {
  std::unique_ptr<InProcessCluster> cluster(new InProcessCluster);
  if (faults.has_value()) cluster->network_ = std::make_unique<transport::FakeNetwork>(*std::move(faults));
  RETURN_IF_ERROR(cluster->StartAll(options));
  return cluster;
}

absl::Status InProcessCluster::StartAll(const ClusterOptions& options) {
  for (const RouterVariant& variant : options.routers) {
    router::RouterOptions router;
    if (!options.metrics) router.server.metrics_listen.clear();
    router.model = options.model;
    router.span_tokens = variant.span_tokens;
    router.codec = variant.codec;
    router.queue_limit = options.queue_limit;
    router.max_running = options.max_running;
    router.max_logprobs = options.max_logprobs;
    router.lease_seconds = options.lease_seconds;
    router.heartbeat_seconds = options.heartbeat_seconds;
    ASSIGN_OR_RETURN(routers_.emplace_back(), router::Router::Start(router));
    ConnectRouter(static_cast<int>(routers_.size()) - 1, routers_.back()->address());
  }
  RETURN_IF_ERROR(StartWorkers(options));
  return WaitReady();
}

absl::Status InProcessCluster::StartWorkers(const ClusterOptions& options) {
  service::WorkerOptions shared;
  if (!options.metrics) shared.server.metrics_listen.clear();
  shared.model = options.model;
  for (const auto& router : routers_) shared.routers.push_back(router->address());
  shared.memory_bytes = options.worker_memory_bytes;
  shared.missing_item_seconds = options.missing_item_seconds;
  shared.ucx_net_devices = "lo";
  for (int i = 0; i < options.prefill_workers; ++i) {
    prefill::PrefillWorkerOptions worker;
    static_cast<service::WorkerOptions&>(worker) = shared;
    worker.name = absl::StrCat("prefill-", i);
    worker.max_span_tokens = options.max_span_tokens;
    ASSIGN_OR_RETURN(prefill_.emplace_back(), prefill::StartWorker(worker, NewTransport()));
  }
  for (int i = 0; i < options.decode_workers; ++i) {
    decode::DecodeWorkerOptions worker;
    static_cast<service::WorkerOptions&>(worker) = shared;
    worker.name = absl::StrCat("decode-", i);
    worker.capture_dir = options.capture_dir;
    ASSIGN_OR_RETURN(decode_.emplace_back(), decode::StartWorker(worker, NewTransport()));
  }
  return absl::OkStatus();
}

std::unique_ptr<transport::Transport> InProcessCluster::NewTransport() {
  return network_ == nullptr ? nullptr : network_->CreateTransport();
}

absl::StatusOr<std::map<std::string, Cluster::Ledger>> InProcessCluster::Ledgers() {
  std::map<std::string, Ledger> result;
  for (size_t i = 0; i < prefill_.size(); ++i) result[absl::StrCat("prefill-", i)] = ToLedger(prefill_[i]->memory());
  for (size_t i = 0; i < decode_.size(); ++i) result[absl::StrCat("decode-", i)] = ToLedger(decode_[i]->memory());
  return result;
}

}  // namespace salamander::testing
