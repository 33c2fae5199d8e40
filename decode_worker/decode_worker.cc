#include "decode_worker/decode_worker.h"

#include <atomic>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/worker/host.h"
#include "common/worker/membership.h"
#include "decode_worker/batcher.h"
#include "decode_worker/service.h"

namespace salamander::decode {
namespace {

absl::Status CheckOptions(const DecodeWorkerOptions& options) {
  if (options.max_batch < 1) {
    return absl::InvalidArgumentError(absl::StrCat("max_batch must be at least 1, got ", options.max_batch));
  }
  return absl::OkStatus();
}

class DecodeWorkerImpl final : public DecodeWorker {
 public:
  absl::Status Init(const DecodeWorkerOptions& options, std::unique_ptr<transport::Transport> transport) {
    RETURN_IF_ERROR(CheckOptions(options));
    ASSIGN_OR_RETURN(host_, worker::Host::Create(options, v1::WORKER_ROLE_DECODE, std::move(transport)));
    ASSIGN_OR_RETURN(batcher_, Batcher::Create(host_.get(), options));
    service_ = std::make_unique<DecodeService>(&batcher_->requests());
    ASSIGN_OR_RETURN(server_, service::Server::Start(options.server, host_->metrics.get(), {service_.get()}));
    server_->SetServing(true);
    v1::WorkerHello hello = host_->Hello(server_->address());
    hello.set_role(v1::WORKER_ROLE_DECODE);
    hello.set_request_memory_bytes(batcher_->requests().request_bytes());
    membership_.Join({.routers = options.routers,
                      .hello = std::move(hello),
                      .heartbeat = [this] { return Heartbeat(); },
                      .on_peers = [](const v1::Peers&) {},  // It sends items to nobody.
                      .on_refused =
                          [on_fatal = options.on_fatal](const absl::Status& status) {
                            if (on_fatal) on_fatal(status);
                          }});
    return absl::OkStatus();
  }

  // No more calls, then no more requests.
  ~DecodeWorkerImpl() override {
    membership_.Leave();
    if (batcher_ != nullptr) batcher_->requests().EndAll(absl::UnavailableError("the worker ends"));
    if (server_ != nullptr) server_->Shutdown(0);
    server_.reset();
    batcher_.reset();
  }

  std::string address() const override { return server_->address(); }
  std::string metrics_address() const override { return server_->metrics_address(); }
  MemoryLedger::Snapshot memory() const override { return host_->ledger->Read(); }

  void Drain(double grace_seconds) override {
    draining_ = true;
    server_->SetServing(false);
    batcher_->requests().StopReserving();
    membership_.Beat();
    if (batcher_->requests().live().WaitForZero(grace_seconds)) return;
    batcher_->requests().EndAll(
        absl::UnavailableError(absl::StrCat("worker ", host_->name, " stops, its grace is over")));
    batcher_->requests().live().WaitForZero();
  }

 private:
  v1::Heartbeat Heartbeat() {
    v1::Heartbeat beat;
    beat.set_ready(!draining_);
    beat.set_active_requests(batcher_->requests().live().Read());
    beat.set_tokens_per_second(batcher_->load().tokens_per_second.average());
    beat.set_free_memory_bytes(batcher_->requests().free_request_bytes());
    worker::ReportMemory(*host_->ledger, beat);
    return beat;
  }

  std::unique_ptr<worker::Host> host_;
  worker::Membership membership_;
  std::atomic<bool> draining_{false};
  std::unique_ptr<Batcher> batcher_;
  std::unique_ptr<DecodeService> service_;
  std::unique_ptr<service::Server> server_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<DecodeWorker>> DecodeWorker::Start(const DecodeWorkerOptions& options,
                                                                  std::unique_ptr<transport::Transport> transport) {
  auto worker = std::make_unique<DecodeWorkerImpl>();
  RETURN_IF_ERROR(worker->Init(options, std::move(transport)));
  return worker;
}

}  // namespace salamander::decode
