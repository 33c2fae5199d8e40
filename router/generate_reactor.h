// The gRPC side of one Generate call: a ClientStream over a server-streaming reactor.
#ifndef SALAMANDER_ROUTER_GENERATE_REACTOR_H_
#define SALAMANDER_ROUTER_GENERATE_REACTOR_H_

#include <grpcpp/support/server_callback.h>

#include <memory>
#include <mutex>
#include <optional>

#include "router/client_stream.h"
#include "router/request.h"
#include "router/write_queue.h"

namespace salamander::router {

// Goes with refusals that are worth trying again.
void AddRetryAfter(grpc::CallbackServerContext* call, double seconds);

// Deletes itself when gRPC is done with it, which is not before Complete or Fail. Any thread.
class GenerateReactor final : public grpc::ServerWriteReactor<v1::GenerateResponse>, public ClientStream {
 public:
  explicit GenerateReactor(grpc::CallbackServerContext* call) : call_(call) {}
  // Once, from the handler, which still owns the call then.
  void Start(const RequestContext* context, const v1::GenerateRequest& request, ApiKey::Ptr key);
  // Instead of Start.
  void Refuse(const absl::Status& status, std::optional<double> retry_after_seconds = std::nullopt) {
    Fail(status, retry_after_seconds);
  }

  void Send(v1::GenerateResponse message) override;
  void Complete(v1::GenerateResponse last) override;
  void Fail(const absl::Status& status, std::optional<double> retry_after_seconds) override;

 private:
  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override { delete this; }

  grpc::CallbackServerContext* const call_;
  std::mutex mutex_;
  std::shared_ptr<Request> request_;  // null before Start has set it
  bool cancelled_ = false;
  bool broken_ = false;  // a write failed: the client is gone, the rest is dropped
  WriteQueue<v1::GenerateResponse> writes_;
  std::optional<grpc::Status> finish_;  // to be sent once all is written
};

}  // namespace salamander::router

#endif  // SALAMANDER_ROUTER_GENERATE_REACTOR_H_
