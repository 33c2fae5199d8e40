#include "tests/router/fake_worker.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "common/service/channel.h"
#include "common/service/trace_context.h"

namespace salamander::router {
namespace {

constexpr int64_t kIdleMemory = 1 << 30;

v1::DecodeEvent TokenEvent(int32_t token) {
  v1::DecodeEvent event;
  event.mutable_tokens()->add_ids(token);
  event.mutable_tokens()->set_text(std::to_string(token) + " ");
  return event;
}

}  // namespace

FakeWorker::FakeWorker(v1::WorkerRole role, std::string name, Script script)
    : script_(std::move(script)), reserve_answers_(script_.reserve), free_memory_(kIdleMemory) {
  hello_.set_role(role);
  hello_.set_name(std::move(name));
  hello_.set_instance_id(RandomId());
  hello_.set_transport_address("at " + hello_.name());
  hello_.set_model_fingerprint("fingerprint");
  hello_.set_kv_element_type(v1::ELEMENT_TYPE_FLOAT32);
  hello_.set_request_memory_bytes(kIdleMemory);
  hello_.set_page_group_bytes(1 << 20);
  hello_.set_bytes_per_request(1 << 20);
  hello_.set_stream_version(1);
  hello_.set_max_span_tokens(8192);
}

FakeWorker::~FakeWorker() = default;

void FakeWorker::Serve(grpc::Service* service) {
  grpc::ServerBuilder builder;
  // Not the workers' own configuration, which keeps few threads for blocking services as this one.
  builder.SetMaxReceiveMessageSize(service::kMaxMessageBytes);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MAX_PING_STRIKES, 0);  // as the workers'
  int port = 0;
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
  builder.RegisterService(service);
  server_ = builder.BuildAndStart();
  hello_.set_grpc_address("127.0.0.1:" + std::to_string(port));
}

void FakeWorker::Register(const std::string& router) {
  service::RegistrationOptions options;
  options.routers = {router};
  options.security.cluster_token = script_.cluster_token;
  options.hello = hello_;
  options.heartbeat = [this] {
    v1::Heartbeat beat;
    beat.set_ready(true);
    std::lock_guard lock(mutex_);
    beat.set_free_memory_bytes(free_memory_);
    beat.set_tokens_per_second(tokens_per_second_);
    return beat;
  };
  registration_ = std::make_unique<service::Registration>(std::move(options));
}

void FakeWorker::Kill() {
  registration_.reset();
  if (server_ == nullptr) return;
  server_->Shutdown(std::chrono::system_clock::now());
  server_->Wait();
}

void FakeWorker::SetFreeMemory(int64_t bytes) {
  {
    std::lock_guard lock(mutex_);
    free_memory_ = bytes;
  }
  if (registration_ != nullptr) registration_->Beat();
}

void FakeWorker::SetRate(double tokens_per_second) {
  {
    std::lock_guard lock(mutex_);
    tokens_per_second_ = tokens_per_second;
  }
  if (registration_ != nullptr) registration_->Beat();
}

int FakeWorker::held() const {
  std::lock_guard lock(mutex_);
  return static_cast<int>(held_.size());
}
int FakeWorker::reserved() const {
  std::lock_guard lock(mutex_);
  return reserved_;
}
int FakeWorker::released() const {
  std::lock_guard lock(mutex_);
  return released_;
}
int FakeWorker::cancelled() const {
  std::lock_guard lock(mutex_);
  return cancelled_;
}
int FakeWorker::streams() const {
  std::lock_guard lock(mutex_);
  return streams_;
}
std::vector<int32_t> FakeWorker::finished_spans() const {
  std::lock_guard lock(mutex_);
  return finished_spans_;
}
v1::PrefillStart FakeWorker::last_prefill_start() const {
  std::lock_guard lock(mutex_);
  return prefill_start_;
}
v1::DecodeStart FakeWorker::last_decode_start() const {
  std::lock_guard lock(mutex_);
  return decode_start_;
}

std::vector<std::string> FakeWorker::traces() const {
  std::lock_guard lock(mutex_);
  return traces_;
}

void FakeWorker::NoteTrace(const grpc::ServerContext& context) {
  const service::TraceContext trace = service::TraceContextOf(context);
  std::lock_guard lock(mutex_);
  traces_.push_back(trace.tracestate.empty() ? trace.traceparent : trace.traceparent + " " + trace.tracestate);
}

grpc::Status FakeWorker::Reserve(grpc::ServerContext* context, const v1::ReserveRequest& request,
                                 v1::ReserveResponse* response) {
  NoteTrace(*context);
  std::unique_lock lock(mutex_);
  ++reserved_;
  changed_.notify_all();
  if (script_.hang_in_reserve) {
    while (!context->IsCancelled()) changed_.wait_for(lock, std::chrono::milliseconds(5));
    return grpc::Status::CANCELLED;
  }
  if (!reserve_answers_.empty()) {
    const grpc::Status answer = reserve_answers_.front();
    reserve_answers_.pop_front();
    if (!answer.ok()) return answer;
  }
  held_[next_epoch_] = request.plan();
  response->set_secret(absl::StrCat(hello_.name(), " ", next_epoch_));
  response->set_epoch(next_epoch_++);
  response->set_instance_id(hello_.instance_id());
  return grpc::Status::OK;
}

grpc::Status FakeWorker::Release(const v1::ReleaseRequest& request) {
  std::lock_guard lock(mutex_);
  if (held_.erase(request.epoch()) == 0) return grpc::Status(grpc::StatusCode::NOT_FOUND, "no such reservation");
  ++released_;
  changed_.notify_all();
  return grpc::Status::OK;
}

std::optional<v1::Plan> FakeWorker::Claim(uint64_t epoch) {
  std::lock_guard lock(mutex_);
  ++streams_;
  changed_.notify_all();
  const auto found = held_.find(epoch);
  if (found == held_.end()) return std::nullopt;
  return found->second;
}

void FakeWorker::Drop(uint64_t epoch, bool cancelled) {
  std::lock_guard lock(mutex_);
  held_.erase(epoch);
  cancelled_ += cancelled;
  changed_.notify_all();
}

void FakeWorker::AddFinishedSpan(int32_t span) {
  std::lock_guard lock(mutex_);
  finished_spans_.push_back(span);
  changed_.notify_all();
}

// ---------------------------------------------------------------------------------------------- prefill

FakePrefillWorker::FakePrefillWorker(std::string name, Script script)
    : FakeWorker(v1::WORKER_ROLE_PREFILL, std::move(name), std::move(script)) {
  Serve(this);
}

grpc::Status FakePrefillWorker::Prefill(grpc::ServerContext* context, Stream* stream) {
  NoteTrace(*context);
  v1::PrefillCommand command;
  if (!stream->Read(&command) || !command.has_start()) {
    return grpc::Status(grpc::StatusCode::INVALID_ARGUMENT, "the first message must be start");
  }
  {
    std::lock_guard lock(mutex_);
    prefill_start_ = command.start();
  }
  const uint64_t epoch = command.start().epoch();
  const std::optional<v1::Plan> plan = Claim(epoch);
  const grpc::Status status =
      plan.has_value() ? Play(*plan, stream) : grpc::Status(grpc::StatusCode::NOT_FOUND, "no such reservation");
  Drop(epoch, context->IsCancelled());
  return status;
}

grpc::Status FakePrefillWorker::Play(const v1::Plan& plan, Stream* stream) {
  const auto read_to_end = [&] {
    v1::PrefillCommand command;
    while (stream->Read(&command)) {
      if (command.has_span_finished()) AddFinishedSpan(command.span_finished().span());
    }
    return grpc::Status::OK;
  };
  if (script_.fail_at == Stage::kAtStart) return script_.failure;
  if (script_.hang_at == Stage::kAtStart) return read_to_end();
  bool one_done = false;
  for (int i = 0; i < plan.spans_size(); ++i) {
    const bool own = plan.prefill_workers(plan.spans(i).worker()).name() == name();
    if (own == script_.claims_foreign_span) continue;
    v1::PrefillEvent event;
    event.mutable_span_started()->set_span(i);
    stream->Write(event);
    event.mutable_span_progress()->set_span(i);
    event.mutable_span_progress()->set_tokens_done((plan.spans(i).end() - plan.spans(i).begin()) / 2);
    stream->Write(event);
    event.mutable_span_done()->set_span(i);
    stream->Write(event);
    if (!std::exchange(one_done, true)) {
      if (script_.fail_at == Stage::kAfterOne) return script_.failure;
      if (script_.hang_at == Stage::kAfterOne) return read_to_end();
    }
  }
  if (script_.fail_at == Stage::kAtEnd) return script_.failure;
  v1::PrefillEvent event;
  event.mutable_done();
  stream->Write(event);
  return read_to_end();
}

// ---------------------------------------------------------------------------------------------- decode

FakeDecodeWorker::FakeDecodeWorker(std::string name, Script script)
    : FakeWorker(v1::WORKER_ROLE_DECODE, std::move(name), std::move(script)) {
  Serve(this);
}

grpc::Status FakeDecodeWorker::Decode(grpc::ServerContext* context, Stream* stream) {
  NoteTrace(*context);
  v1::DecodeCommand command;
  if (!stream->Read(&command) || !command.has_start()) {
    return grpc::Status(grpc::StatusCode::INVALID_ARGUMENT, "the first message must be start");
  }
  {
    std::lock_guard lock(mutex_);
    decode_start_ = command.start();
  }
  const uint64_t epoch = command.start().epoch();
  const std::optional<v1::Plan> plan = Claim(epoch);
  const grpc::Status status =
      plan.has_value() ? Play(*plan, stream) : grpc::Status(grpc::StatusCode::NOT_FOUND, "no such reservation");
  Drop(epoch, context->IsCancelled());
  return status;
}

grpc::Status FakeDecodeWorker::Play(const v1::Plan& plan, Stream* stream) {
  v1::DecodeCommand command;
  const auto read_to_end = [&] {
    while (stream->Read(&command)) {
    }
    return grpc::Status::OK;
  };
  if (script_.tokens_before_ready) stream->Write(TokenEvent(1));
  if (script_.fail_at == Stage::kAtStart) return script_.failure;
  if (script_.hang_at == Stage::kAtStart) return read_to_end();
  for (int spans = 0; !script_.ready_at_once && spans < plan.spans_size(); ++spans) {
    if (!stream->Read(&command)) return grpc::Status::OK;
    AddFinishedSpan(command.span_finished().span());
  }
  v1::DecodeEvent event;
  event.mutable_ready();
  stream->Write(event);
  for (size_t i = 0; i < script_.tokens.size(); ++i) {
    stream->Write(TokenEvent(script_.tokens[i]));
    if (i > 0) continue;
    if (script_.fail_at == Stage::kAfterOne) return script_.failure;
    if (script_.hang_at == Stage::kAfterOne) return read_to_end();
  }
  if (script_.fail_at == Stage::kAtEnd) return script_.failure;
  if (script_.hang_at == Stage::kAtEnd) return read_to_end();
  event.mutable_finished()->set_reason(v1::FINISH_REASON_STOP);
  event.mutable_finished()->set_completion_tokens(static_cast<int64_t>(script_.tokens.size()));
  stream->Write(event);
  return grpc::Status::OK;
}

}  // namespace salamander::router
