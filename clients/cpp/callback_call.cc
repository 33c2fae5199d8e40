#include "clients/cpp/callback_call.h"

#include <grpcpp/support/client_callback.h>

#include <optional>
#include <utility>

#include "clients/cpp/convert.h"
#include "clients/cpp/generate_call.h"
#include "common/service/grpc_status.h"

namespace salamander::client {
namespace {

class Reader final : public CallbackCall, public grpc::ClientReadReactor<v1::GenerateResponse> {
 public:
  Reader(v1::GenerateRequest request, GenerateCallbacks callbacks)
      : request_(std::move(request)), callbacks_(std::move(callbacks)) {}

  void Start(v1::Inference::Stub& stub, const CallOptions& options, std::shared_ptr<Reader> self) {
    self_ = std::move(self);
    Prepare(context_, options);
    stub.async()->Generate(&context_, &request_, this);
    StartRead(&response_);
    StartCall();
  }

  void Cancel() override { context_.TryCancel(); }

 private:
  void OnReadDone(bool ok) override {
    if (!ok) return;  // OnDone follows.
    if (const std::optional<Event> event = FromProto(response_)) {
      finished_ = std::holds_alternative<Finished>(*event);
      if (callbacks_.on_event) callbacks_.on_event(*event);
    }
    response_.Clear();
    StartRead(&response_);
  }

  void OnDone(const grpc::Status& status) override {
    const std::shared_ptr<Reader> self = std::move(self_);
    absl::Status end = service::FromGrpc(status);
    if (end.ok() && !finished_) end = EndedWithoutFinished();
    callbacks_.on_end(end, RetryAfter(context_));
    callbacks_ = {};
  }

  grpc::ClientContext context_;
  const v1::GenerateRequest request_;
  GenerateCallbacks callbacks_;
  v1::GenerateResponse response_;
  bool finished_ = false;
  std::shared_ptr<Reader> self_;
};

}  // namespace

std::shared_ptr<CallbackCall> StartCallbackCall(v1::Inference::Stub& stub, v1::GenerateRequest request,
                                                const CallOptions& options, GenerateCallbacks callbacks) {
  auto call = std::make_shared<Reader>(std::move(request), std::move(callbacks));
  call->Start(stub, options, call);
  return call;
}

}  // namespace salamander::client
