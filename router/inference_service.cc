#include "router/inference_service.h"

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
  if (accepting_) {
    reactor->Start(&context_, *request);
  } else {
    reactor->Refuse(absl::UnavailableError("the router is draining"));
  }
  return reactor;
}

grpc::ServerUnaryReactor* InferenceService::Tokenize(grpc::CallbackServerContext* call,
                                                     const v1::TokenizeRequest* request,
                                                     v1::TokenizeResponse* response) {
  grpc::ServerUnaryReactor* reactor = call->DefaultReactor();
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
  *response = Model();
  grpc::ServerUnaryReactor* reactor = call->DefaultReactor();
  reactor->Finish(grpc::Status::OK);
  return reactor;
}

}  // namespace salamander::router
