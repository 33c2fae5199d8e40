#include "prefill_worker/prefill_worker.h"

#include <atomic>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/log.h"
#include "common/base/status_macros.h"
#include "common/worker/host.h"
#include "common/worker/membership.h"
#include "prefill_worker/executor.h"
#include "prefill_worker/links.h"
#include "prefill_worker/service.h"

namespace salamander::prefill {
namespace {

absl::Status CheckOptions(const PrefillWorkerOptions& options) {
  if (options.max_span_tokens < 128 || options.max_span_tokens % 128 != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("max_span_tokens must be a positive multiple of 128, got ", options.max_span_tokens));
  }
  if (options.max_active_spans < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("max_active_spans must be at least 1, got ", options.max_active_spans));
  }
  return absl::OkStatus();
}

class PrefillWorkerImpl final : public PrefillWorker {
 public:
  absl::Status Init(const PrefillWorkerOptions& options, std::unique_ptr<transport::Transport> transport) {
    RETURN_IF_ERROR(CheckOptions(options));
    ASSIGN_OR_RETURN(host_, worker::Host::Create(options, v1::WORKER_ROLE_PREFILL, std::move(transport)));
    ASSIGN_OR_RETURN(executor_, Executor::Create(host_.get(), options));
    links_ = std::make_unique<Links>(&executor_->publisher(), host_->metrics.get(), host_->transport->name(),
                                     [this] { membership_.Beat(); });
    service_ = std::make_unique<PrefillService>(&executor_->requests());
    ASSIGN_OR_RETURN(server_, service::Server::Start(options.server, host_->metrics.get(), {service_.get()}));
    server_->SetServing(true);
    v1::WorkerHello hello = host_->Hello(server_->address());
    hello.set_role(v1::WORKER_ROLE_PREFILL);
    hello.set_request_memory_bytes(executor_->requests().request_bytes());
    hello.set_max_span_tokens(options.max_span_tokens);
    membership_.Join({.routers = options.routers,
                      .hello = std::move(hello),
                      .heartbeat = [this] { return Heartbeat(); },
                      .on_peers = [this](const v1::Peers& peers) { links_->Update(peers); },
                      .on_refused =
                          [on_fatal = options.on_fatal](const absl::Status& status) {
                            if (on_fatal) on_fatal(status);
                          }});
    return absl::OkStatus();
  }

  // No more peers, then no more calls, then no more requests, then (in ~Executor) no more callbacks into the links.
  ~PrefillWorkerImpl() override {
    membership_.Leave();
    if (links_ != nullptr) links_->Update({});
    if (executor_ != nullptr) executor_->requests().EndAll(absl::UnavailableError("the worker ends"));
    if (server_ != nullptr) server_->Shutdown(0);
    server_.reset();
    executor_.reset();
  }

  std::string address() const override { return server_->address(); }
  std::string metrics_address() const override { return server_->metrics_address(); }
  MemoryLedger::Snapshot memory() const override { return host_->ledger->Read(); }

  void Drain(double grace_seconds) override {
    draining_ = true;
    server_->SetServing(false);
    executor_->requests().StopReserving();
    membership_.Beat();
    if (executor_->requests().live().WaitForZero(grace_seconds)) return;
    executor_->requests().EndAll(
        absl::UnavailableError(absl::StrCat("worker ", host_->name, " stops, its grace is over")));
    links_->Update({});  // A peer that takes nothing any more must not hold up the end.
    executor_->requests().live().WaitForZero();
  }

 private:
  v1::Heartbeat Heartbeat() {
    links_->Retry();
    v1::Heartbeat beat;
    beat.set_ready(!draining_ && links_->warm());
    beat.set_queued_tokens(executor_->load().queued_tokens);
    beat.set_active_requests(executor_->requests().live().Read());
    beat.set_tokens_per_second(executor_->load().tokens_per_second.average());
    beat.set_free_memory_bytes(executor_->requests().free_request_bytes());
    worker::ReportMemory(*host_->ledger, beat);
    links_->Report(beat);
    return beat;
  }

  std::unique_ptr<worker::Host> host_;
  worker::Membership membership_;
  std::atomic<bool> draining_{false};
  std::unique_ptr<Links> links_;
  std::unique_ptr<Executor> executor_;
  std::unique_ptr<PrefillService> service_;
  std::unique_ptr<service::Server> server_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<PrefillWorker>> PrefillWorker::Start(const PrefillWorkerOptions& options,
                                                                    std::unique_ptr<transport::Transport> transport) {
  auto worker = std::make_unique<PrefillWorkerImpl>();
  RETURN_IF_ERROR(worker->Init(options, std::move(transport)));
  return worker;
}

}  // namespace salamander::prefill
