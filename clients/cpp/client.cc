#include "clients/cpp/client.h"

#include <grpcpp/grpcpp.h>

#include <chrono>
#include <utility>

#include "absl/strings/str_cat.h"
#include "clients/cpp/callback_call.h"
#include "clients/cpp/convert.h"
#include "clients/cpp/generate_call.h"
#include "common/base/status_macros.h"
#include "common/service/certificate.h"
#include "common/service/channel.h"
#include "common/service/grpc_status.h"
#include "common/service/tls_diagnosis.h"
#include "salamander/v1/cluster.grpc.pb.h"
#include "salamander/v1/inference.grpc.pb.h"

namespace salamander::client {

namespace {

// A server that is not there may come up yet; one that refuses to shake hands, or is refused, will not change its mind.
absl::Status WaitForConnection(grpc::Channel& channel, const std::string& target, const service::TlsFiles& tls,
                               absl::Duration timeout) {
  const auto deadline = std::chrono::system_clock::now() + absl::ToChronoMicroseconds(timeout);
  const std::string failure = absl::StrCat("no connection to ", target);
  grpc_connectivity_state state = channel.GetState(/*try_to_connect=*/true);
  while (state != GRPC_CHANNEL_READY) {
    if (state == GRPC_CHANNEL_TRANSIENT_FAILURE) {
      const std::string why = service::ExplainTlsFailure(target, tls);
      if (!why.empty()) return absl::UnavailableError(absl::StrCat(failure, ": ", why));
    }
    if (!channel.WaitForStateChange(state, deadline)) {
      return absl::UnavailableError(absl::StrCat(failure, " after ", absl::FormatDuration(timeout)));
    }
    state = channel.GetState(/*try_to_connect=*/true);
  }
  return absl::OkStatus();
}

}  // namespace

struct Client::Impl {
  explicit Impl(const std::shared_ptr<grpc::Channel>& connected)
      : inference(v1::Inference::NewStub(connected)), cluster(v1::Cluster::NewStub(connected)) {}
  std::unique_ptr<v1::Inference::Stub> inference;
  std::unique_ptr<v1::Cluster::Stub> cluster;
};

Client::Client(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Client::~Client() = default;
Client::Client(Client&&) noexcept = default;
Client& Client::operator=(Client&&) noexcept = default;

absl::StatusOr<Client> Client::Connect(const std::string& target, const ClientOptions& options) {
  service::ChannelSecurity security;
  security.tls.ca = options.tls_ca;
  security.tls.cert = options.tls_cert;
  security.tls.key = options.tls_key;
  security.tls.server_name = options.tls_server_name;
  security.cluster_token = options.cluster_token;
  security.api_key = options.api_key;
  RETURN_IF_ERROR(service::CheckTlsFiles(security.tls));
  std::shared_ptr<grpc::Channel> channel =
      service::MakeChannel(target, security, {.own_connection = options.own_connection});
  RETURN_IF_ERROR(WaitForConnection(*channel, target, security.tls, options.connect_timeout));
  return Client(std::make_unique<Impl>(channel));
}

std::unique_ptr<GenerateCall> Client::Generate(const GenerateRequest& request, const CallOptions& options) const {
  return std::make_unique<GenerateCall>(
      std::make_unique<GenerateCall::Impl>(*impl_->inference, ToProto(request), options));
}

std::shared_ptr<CallbackCall> Client::GenerateAsync(const GenerateRequest& request, GenerateCallbacks callbacks,
                                                    const CallOptions& options) const {
  return StartCallbackCall(*impl_->inference, ToProto(request), options, std::move(callbacks));
}

absl::StatusOr<Completion> Client::Complete(const GenerateRequest& request, const CallOptions& options,
                                            const std::function<void(const Event&)>& on_event) const {
  std::unique_ptr<GenerateCall> call = Generate(request, options);
  Completion completion;
  while (true) {
    ASSIGN_OR_RETURN(Event event, call->Next());
    if (on_event) on_event(event);
    if (auto* accepted = std::get_if<Accepted>(&event)) completion.request_id = accepted->request_id;
    if (auto* chunk = std::get_if<TokenChunk>(&event)) {
      completion.tokens.insert(completion.tokens.end(), chunk->ids.begin(), chunk->ids.end());
      completion.text += chunk->text;
      completion.logprobs.insert(completion.logprobs.end(), chunk->logprobs.begin(), chunk->logprobs.end());
    }
    if (auto* finished = std::get_if<Finished>(&event)) {
      completion.finished = std::move(*finished);
      return completion;
    }
  }
}

absl::StatusOr<std::vector<int32_t>> Client::Tokenize(const Prompt& prompt, const CallOptions& options) const {
  grpc::ClientContext context;
  Prepare(context, options);
  v1::TokenizeRequest request;
  *request.mutable_prompt() = ToProto(prompt);
  v1::TokenizeResponse response;
  RETURN_IF_ERROR(service::FromGrpc(impl_->inference->Tokenize(&context, request, &response)));
  return std::vector<int32_t>(response.ids().begin(), response.ids().end());
}

absl::StatusOr<ModelInfo> Client::GetModel(const CallOptions& options) const {
  grpc::ClientContext context;
  Prepare(context, options);
  v1::GetModelResponse response;
  RETURN_IF_ERROR(service::FromGrpc(impl_->inference->GetModel(&context, v1::GetModelRequest(), &response)));
  return FromProto(response);
}

absl::StatusOr<ClusterStatus> Client::GetStatus(const CallOptions& options) const {
  grpc::ClientContext context;
  Prepare(context, options);
  v1::GetStatusResponse response;
  RETURN_IF_ERROR(service::FromGrpc(impl_->cluster->GetStatus(&context, v1::GetStatusRequest(), &response)));
  return FromProto(response);
}

}  // namespace salamander::client
