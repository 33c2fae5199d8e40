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
  if (options.transfer_buffer_bytes < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("transfer_buffer_bytes must be above 0, got ", options.transfer_buffer_bytes));
  }
  return absl::OkStatus();
}

class DecodeWorkerImpl final : public DecodeWorker {
 public:
  absl::Status Init(const DecodeWorkerOptions& options, std::unique_ptr<transport::Transport> transport) {
    RETURN_IF_ERROR(CheckOptions(options));
    ASSIGN_OR_RETURN(host_, worker::Host::Create(options, v1::WORKER_ROLE_DECODE, std::move(transport)));
    ASSIGN_OR_RETURN(batcher_, Batcher::Create(host_.get(), options));
    service_ = std::make_unique<DecodeService>(batcher_.get());
    ASSIGN_OR_RETURN(server_, service::Server::Start(options.server, host_->metrics.get(), {service_.get()}));
    server_->SetServing(true);
    membership_.Join({.routers = options.routers,
                      .hello = host_->Hello(server_->address(), batcher_->request_bytes()),
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
    if (batcher_ != nullptr) batcher_->EndAll(absl::UnavailableError("the worker ends"));
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
    batcher_->StopReserving();
    membership_.Beat();
    if (batcher_->live().WaitForZero(grace_seconds)) return;
    batcher_->EndAll(absl::UnavailableError(absl::StrCat("worker ", host_->name, " stops, its grace is over")));
    batcher_->live().WaitForZero();
  }

 private:
  v1::Heartbeat Heartbeat() {
    v1::Heartbeat beat;
    beat.set_ready(!draining_);
    beat.set_active_requests(batcher_->load().requests);
    beat.set_tokens_per_second(batcher_->load().tokens_per_second);
    beat.set_free_memory_bytes(batcher_->free_request_bytes());
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
