#include "prefill_worker/prefill_worker.h"

#include <functional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
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

class PrefillRole final : public worker::Role {
 public:
  static absl::StatusOr<std::unique_ptr<worker::Role>> Create(worker::Host* host, const PrefillWorkerOptions& options,
                                                              std::function<void()> beat) {
    auto role = std::make_unique<PrefillRole>(options.max_span_tokens);
    ASSIGN_OR_RETURN(role->executor_, Executor::Create(host, options));
    role->links_ = std::make_unique<Links>(&role->executor_->publisher(), host->metrics.get(), host->transport->name(),
                                           std::move(beat));
    role->service_ = std::make_unique<PrefillService>(host, &role->executor_->requests());
    return role;
  }

  explicit PrefillRole(int64_t max_span_tokens) : max_span_tokens_(max_span_tokens) {}

  grpc::Service* service() override { return service_.get(); }
  worker::RequestTableBase& requests() override { return executor_->requests(); }

  void AddTo(v1::WorkerHello& hello) const override { hello.set_max_span_tokens(max_span_tokens_); }

  void AddTo(v1::Heartbeat& beat) override {
    links_->Retry();
    if (!links_->warm()) beat.set_ready(false);
    beat.set_queued_tokens(executor_->load().queued_tokens);
    beat.set_tokens_per_second(executor_->load().tokens_per_second.average());
    links_->Report(beat);
  }

  void OnPeers(const v1::Peers& peers) override { links_->Update(peers); }

 private:
  const int64_t max_span_tokens_;
  std::unique_ptr<Links> links_;  // Outlives the executor, whose publisher calls it back.
  std::unique_ptr<Executor> executor_;
  std::unique_ptr<PrefillService> service_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<worker::Worker>> StartWorker(const PrefillWorkerOptions& options,
                                                            std::unique_ptr<transport::Transport> transport) {
  ASSIGN_OR_RETURN(std::shared_ptr<worker::Device> device, worker::Device::Open(options, /*roles=*/1));
  return StartWorkerOn(std::move(device), options, {}, std::move(transport));
}

absl::StatusOr<std::unique_ptr<worker::Worker>> StartWorkerOn(std::shared_ptr<worker::Device> device,
                                                              const PrefillWorkerOptions& options,
                                                              std::vector<worker::Host*> neighbours,
                                                              std::unique_ptr<transport::Transport> transport) {
  RETURN_IF_ERROR(CheckOptions(options));
  ASSIGN_OR_RETURN(std::unique_ptr<worker::Host> host,
                   worker::Host::Create(options, v1::WORKER_ROLE_PREFILL, std::move(device), std::move(transport)));
  host->neighbours = std::move(neighbours);
  return worker::Worker::Start(std::move(host), [&options](worker::Host* on, std::function<void()> beat) {
    return PrefillRole::Create(on, options, std::move(beat));
  });
}

}  // namespace salamander::prefill
