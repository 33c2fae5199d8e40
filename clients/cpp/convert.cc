#include "clients/cpp/convert.h"

#include <utility>

namespace salamander::client {
namespace {

FinishReason FromProto(v1::FinishReason reason) {
  switch (reason) {
    case v1::FINISH_REASON_STOP:
      return FinishReason::kStop;
    case v1::FINISH_REASON_LENGTH:
      return FinishReason::kLength;
    default:
      return FinishReason::kUnknown;
  }
}

WorkerRole FromProto(v1::WorkerRole role) {
  switch (role) {
    case v1::WORKER_ROLE_PREFILL:
      return WorkerRole::kPrefill;
    case v1::WORKER_ROLE_DECODE:
      return WorkerRole::kDecode;
    default:
      return WorkerRole::kUnknown;
  }
}

v1::SamplingOptions ToProto(const SamplingOptions& sampling) {
  v1::SamplingOptions proto;
  if (sampling.temperature) proto.set_temperature(*sampling.temperature);
  if (sampling.top_p) proto.set_top_p(*sampling.top_p);
  if (sampling.top_k) proto.set_top_k(*sampling.top_k);
  if (sampling.min_p) proto.set_min_p(*sampling.min_p);
  if (sampling.repetition_penalty) proto.set_repetition_penalty(*sampling.repetition_penalty);
  if (sampling.presence_penalty) proto.set_presence_penalty(*sampling.presence_penalty);
  if (sampling.frequency_penalty) proto.set_frequency_penalty(*sampling.frequency_penalty);
  if (sampling.seed) proto.set_seed(*sampling.seed);
  for (const auto& [token, bias] : sampling.logit_bias) (*proto.mutable_logit_bias())[token] = bias;
  return proto;
}

TokenChunk FromProto(const v1::TokenChunk& proto) {
  TokenChunk chunk;
  chunk.ids.assign(proto.ids().begin(), proto.ids().end());
  chunk.text = proto.text();
  for (const v1::TokenLogprob& from : proto.logprobs()) {
    TokenLogprob& to = chunk.logprobs.emplace_back(TokenLogprob{.token = from.token(), .logprob = from.logprob()});
    for (const v1::TopLogprob& top : from.top()) to.top.push_back({top.token(), top.logprob()});
  }
  return chunk;
}

Timing FromProto(const v1::Timing& proto) {
  return {.ttft = proto.ttft(),
          .router_queue = proto.router_queue(),
          .prefill_queue = proto.prefill_queue(),
          .prefill = proto.prefill(),
          .transfer_exposed = proto.transfer_exposed(),
          .decode_queue = proto.decode_queue(),
          .first_step = proto.first_step(),
          .tokens_per_second = proto.tokens_per_second()};
}

Finished FromProto(const v1::Finished& proto) {
  Finished finished;
  finished.reason = FromProto(proto.reason());
  finished.usage = {proto.usage().prompt_tokens(), proto.usage().completion_tokens()};
  finished.timing = FromProto(proto.timing());
  for (const v1::PlannedSpan& span : proto.spans()) finished.spans.push_back({span.begin(), span.end(), span.worker()});
  finished.decode_worker = proto.decode_worker();
  finished.seed = proto.seed();
  return finished;
}

WorkerStatus FromProto(const v1::WorkerStatus& proto) {
  const v1::Heartbeat& last = proto.last();
  WorkerStatus worker;
  worker.role = FromProto(proto.role());
  worker.name = proto.name();
  worker.instance_id = proto.instance_id();
  worker.address = proto.grpc_address();
  worker.version = proto.build_version();
  worker.transport = proto.transport_name();
  worker.ready = last.ready();
  worker.running_requests = proto.running_requests();
  worker.active_requests = last.active_requests();
  worker.queued_tokens = last.queued_tokens();
  worker.tokens_per_second = last.tokens_per_second();
  worker.memory_capacity_bytes = last.memory_capacity_bytes();
  worker.memory_free_bytes = last.free_memory_bytes();
  for (const v1::MemoryOwner& owner : last.memory()) worker.memory_by_owner[owner.owner()] = owner.bytes();
  for (const v1::LinkStatus& link : last.links()) {
    worker.links.push_back(
        {link.peer_name(), link.connected(), link.bytes_per_second(), link.transport(), link.error()});
  }
  worker.seconds_since_heartbeat = proto.seconds_since_heartbeat();
  return worker;
}

}  // namespace

const char* FinishReasonName(FinishReason reason) {
  switch (reason) {
    case FinishReason::kStop:
      return "stop";
    case FinishReason::kLength:
      return "length";
    case FinishReason::kUnknown:
      break;
  }
  return "unknown";
}

const char* WorkerRoleName(WorkerRole role) {
  switch (role) {
    case WorkerRole::kPrefill:
      return "prefill";
    case WorkerRole::kDecode:
      return "decode";
    case WorkerRole::kUnknown:
      break;
  }
  return "unknown";
}

v1::Prompt ToProto(const Prompt& prompt) {
  v1::Prompt proto;
  if (const auto* text = std::get_if<Text>(&prompt)) {
    proto.set_text(*text);
  } else if (const auto* tokens = std::get_if<TokenIds>(&prompt)) {
    proto.mutable_tokens()->mutable_ids()->Add(tokens->begin(), tokens->end());
  } else {
    proto.mutable_chat();
    for (const ChatMessage& message : std::get<Chat>(prompt)) {
      v1::ChatMessage* added = proto.mutable_chat()->add_messages();
      added->set_role(message.role);
      added->set_content(message.content);
    }
  }
  return proto;
}

v1::GenerateRequest ToProto(const GenerateRequest& request) {
  v1::GenerateRequest proto;
  *proto.mutable_prompt() = ToProto(request.prompt);
  if (request.max_tokens) proto.set_max_tokens(*request.max_tokens);
  *proto.mutable_sampling() = ToProto(request.sampling);
  for (const StopCondition& stop : request.stop) {
    if (const auto* text = std::get_if<std::string>(&stop)) {
      proto.add_stop()->set_text(*text);
    } else {
      proto.add_stop()->set_token_id(std::get<int32_t>(stop));
    }
  }
  proto.set_ignore_eos(request.ignore_eos);
  if (request.logprobs) proto.set_logprobs(*request.logprobs);
  proto.set_priority(request.priority);
  return proto;
}

std::optional<Event> FromProto(const v1::GenerateResponse& response) {
  switch (response.event_case()) {
    case v1::GenerateResponse::kAccepted:
      return Accepted{response.accepted().request_id(), response.accepted().prompt_tokens()};
    case v1::GenerateResponse::kProgress:
      return Progress{response.progress().prompt_tokens(), response.progress().prefilled_tokens(),
                      response.progress().tokens_per_second(), response.progress().seconds_left()};
    case v1::GenerateResponse::kTokens:
      return FromProto(response.tokens());
    case v1::GenerateResponse::kFinished:
      return FromProto(response.finished());
    case v1::GenerateResponse::EVENT_NOT_SET:
      break;
  }
  return std::nullopt;
}

ModelInfo FromProto(const v1::GetModelResponse& response) {
  ModelInfo model;
  model.name = response.name();
  model.fingerprint = response.fingerprint();
  model.vocab_size = response.vocab_size();
  model.max_total_tokens = response.max_total_tokens();
  model.eos_token_ids.assign(response.eos_token_ids().begin(), response.eos_token_ids().end());
  model.max_logprobs = response.max_logprobs();
  model.default_max_tokens = response.default_max_tokens();
  return model;
}

ClusterStatus FromProto(const v1::GetStatusResponse& response) {
  ClusterStatus status;
  status.router_version = response.router_version();
  status.model = FromProto(response.model());
  status.ready = response.ready();
  status.queued_requests = response.queued_requests();
  status.running_requests = response.running_requests();
  status.queue_limit = response.queue_limit();
  status.router_cpu_seconds = response.router_cpu_seconds();
  for (const v1::WorkerStatus& worker : response.workers()) status.workers.push_back(FromProto(worker));
  return status;
}

}  // namespace salamander::client
