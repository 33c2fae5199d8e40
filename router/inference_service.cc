#include "router/inference_service.h"

#include "common/service/channel.h"
#include "common/service/cluster_gate.h"
#include "common/service/grpc_status.h"
#include "router/generate_reactor.h"

namespace salamander::router {

v1::GetModelResponse InferenceService::Model() const {
  v1::GetModelResponse model;
  model.set_name(context_.model->name);
  model.set_fingerprint(registry_.model_fingerprint());
  model.set_vocab_size(context_.model->vocab_size);
  model.set_max_total_tokens(context_.limits.max_total_tokens);
  model.mutable_eos_token_ids()->Assign(context_.model->eos_token_ids.begin(), context_.model->eos_token_ids.end());
  model.set_max_logprobs(context_.limits.max_logprobs);
  model.set_default_max_tokens(context_.limits.default_max_tokens);
  return model;
}

grpc::ServerWriteReactor<v1::GenerateResponse>* InferenceService::Generate(grpc::CallbackServerContext* call,
                                                                           const v1::GenerateRequest* request) {
  auto* reactor = new GenerateReactor(call);  // Deletes itself.
  absl::StatusOr<ApiKey::Ptr> key = Authenticate(*call);
  if (!key.ok()) {
    reactor->Refuse(key.status());
  } else if (!accepting_) {
    reactor->Refuse(absl::UnavailableError("the router is draining"));
  } else if (Verdict verdict = *key == nullptr ? Verdict() : (*key)->StartRequest(); !verdict.status.ok()) {
    reactor->Refuse(verdict.status, verdict.retry_after_seconds);
  } else {
    reactor->Start(&context_, *request, *std::move(key));
  }
  return reactor;
}

grpc::ServerUnaryReactor* InferenceService::Tokenize(grpc::CallbackServerContext* call,
                                                     const v1::TokenizeRequest* request,
                                                     v1::TokenizeResponse* response) {
  grpc::ServerUnaryReactor* reactor = call->DefaultReactor();
  const absl::StatusOr<ApiKey::Ptr> key = Authenticate(*call);
  const Verdict verdict = key.ok() && *key != nullptr ? (*key)->CountRequest() : Verdict{.status = key.status()};
  if (!verdict.status.ok()) {
    if (verdict.retry_after_seconds > 0) AddRetryAfter(call, verdict.retry_after_seconds);
    reactor->Finish(service::ToGrpc(verdict.status));
    return reactor;
  }
  // The token keeps the pools; request and response are gRPC's until Finish.
  context_.text->Post([this, token = context_.active->Token(), reactor, request, response] {
    const auto tokens = PromptTokens(request->prompt(), *context_.model);
    if (tokens.ok()) response->mutable_ids()->Assign(tokens->begin(), tokens->end());
    reactor->Finish(service::ToGrpc(tokens.status()));
  });
  return reactor;
}

grpc::ServerUnaryReactor* InferenceService::GetModel(grpc::CallbackServerContext* call, const v1::GetModelRequest*,
                                                     v1::GetModelResponse* response) {
  const absl::StatusOr<ApiKey::Ptr> key = Authenticate(*call);
  if (key.ok()) *response = Model();
  grpc::ServerUnaryReactor* reactor = call->DefaultReactor();
  reactor->Finish(service::ToGrpc(key.status()));
  return reactor;
}

absl::StatusOr<ApiKey::Ptr> InferenceService::Authenticate(const grpc::CallbackServerContext& call) const {
  if (context_.keys == nullptr) return nullptr;
  return context_.keys->Authenticate(service::MetadataValue(call, service::kAuthorizationKey));
}

}  // namespace salamander::router
