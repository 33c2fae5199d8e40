#include "decode_worker/decode_worker.h"

#include <functional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "decode_worker/batcher.h"
#include "decode_worker/service.h"

namespace salamander::decode {
namespace {

class DecodeRole final : public worker::Role {
 public:
  DecodeRole(worker::Host* host, std::unique_ptr<Batcher> batcher)
      : batcher_(std::move(batcher)), service_(host, &batcher_->requests()) {}

  grpc::Service* service() override { return &service_; }
  worker::RequestTableBase& requests() override { return batcher_->requests(); }
  void AddTo(v1::WorkerHello&) const override {}
  void AddTo(v1::Heartbeat& beat) override { beat.set_tokens_per_second(batcher_->load().tokens_per_second.average()); }
  void OnPeers(const v1::Peers&) override {}  // It sends items to nobody.

 private:
  const std::unique_ptr<Batcher> batcher_;
  DecodeService service_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<worker::Worker>> StartWorker(const DecodeWorkerOptions& options,
                                                            std::unique_ptr<transport::Transport> transport) {
  ASSIGN_OR_RETURN(std::shared_ptr<worker::Device> device, worker::Device::Open(options, /*roles=*/1));
  return StartWorkerOn(std::move(device), options, std::move(transport));
}

absl::StatusOr<std::unique_ptr<worker::Worker>> StartWorkerOn(std::shared_ptr<worker::Device> device,
                                                              const DecodeWorkerOptions& options,
                                                              std::unique_ptr<transport::Transport> transport) {
  if (options.max_batch < 1) {
    return absl::InvalidArgumentError(absl::StrCat("max_batch must be at least 1, got ", options.max_batch));
  }
  ASSIGN_OR_RETURN(std::unique_ptr<worker::Host> host,
                   worker::Host::Create(options, v1::WORKER_ROLE_DECODE, std::move(device), std::move(transport)));
  return worker::Worker::Start(
      std::move(host),
      [&options](worker::Host* on, const std::function<void()>&) -> absl::StatusOr<std::unique_ptr<worker::Role>> {
        ASSIGN_OR_RETURN(std::unique_ptr<Batcher> batcher, Batcher::Create(on, options));
        return std::make_unique<DecodeRole>(on, std::move(batcher));
      });
}

}  // namespace salamander::decode
