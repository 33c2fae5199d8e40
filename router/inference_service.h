// What clients call: Generate, Tokenize, GetModel.
#ifndef SALAMANDER_ROUTER_INFERENCE_SERVICE_H_
#define SALAMANDER_ROUTER_INFERENCE_SERVICE_H_

#include <atomic>

#include "router/registry.h"
#include "router/request.h"
#include "salamander/v1/inference.grpc.pb.h"

namespace salamander::router {

// Runs on gRPC's threads, where it only hands over. The context outlives it, and it outlives its server.
class InferenceService final : public v1::Inference::CallbackService {
 public:
  InferenceService(const RequestContext* context, const Registry* registry)
      : context_(*context), registry_(*registry) {}

  // New Generate calls get UNAVAILABLE from now on.
  void StopAccepting() { accepting_ = false; }
  bool accepting() const { return accepting_; }
  v1::GetModelResponse Model() const;

  grpc::ServerWriteReactor<v1::GenerateResponse>* Generate(grpc::CallbackServerContext* call,
                                                           const v1::GenerateRequest* request) override;
  grpc::ServerUnaryReactor* Tokenize(grpc::CallbackServerContext* call, const v1::TokenizeRequest* request,
                                     v1::TokenizeResponse* response) override;
  grpc::ServerUnaryReactor* GetModel(grpc::CallbackServerContext* call, const v1::GetModelRequest* request,
                                     v1::GetModelResponse* response) override;

  // Of a client's call; null if the router has no keys.
  absl::StatusOr<ApiKey::Ptr> Authenticate(const grpc::CallbackServerContext& call) const;

 private:
  const RequestContext& context_;
  const Registry& registry_;
  std::atomic<bool> accepting_ = true;
};

}  // namespace salamander::router

#endif  // SALAMANDER_ROUTER_INFERENCE_SERVICE_H_
