#include "tests/common/worker/played_request.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "common/service/channel.h"
#include "common/service/grpc_status.h"

namespace salamander::testing {

PlayedRequest::PlayedRequest(const std::vector<v1::WorkerHello>& prefill, const v1::WorkerHello& decode,
                             PlayedSpec spec)
    : spec_(std::move(spec)), hears_(!spec_.deaf) {
  const auto prompt_tokens = static_cast<int64_t>(spec_.prompt.size());
  for (const v1::WorkerHello& hello : prefill) {
    auto leg = std::make_unique<PrefillLeg>();
    leg->stub = v1::PrefillWorker::NewStub(service::MakeChannel(hello.grpc_address()));
    prefill_.push_back(std::move(leg));
    v1::PlanWorker& worker = *plan_.add_prefill_workers();
    worker.set_instance_id(hello.instance_id());
    worker.set_name(hello.name());
  }
  decode_.stub = v1::DecodeWorker::NewStub(service::MakeChannel(decode.grpc_address()));
  plan_.mutable_decode_worker()->set_instance_id(decode.instance_id());
  plan_.mutable_decode_worker()->set_name(decode.name());
  plan_.set_codec(spec_.codec);
  plan_.set_prompt_tokens(prompt_tokens);
  for (int64_t begin = 0; begin < prompt_tokens; begin += spec_.span_tokens) {
    const size_t worker = plan_.spans_size() % prefill_.size();
    v1::SpanAssignment& span = *plan_.add_spans();
    span.set_begin(begin);
    span.set_end(std::min(prompt_tokens, begin + spec_.span_tokens));
    span.set_worker(static_cast<int32_t>(worker));
    prefill_[worker]->tokens.insert(prefill_[worker]->tokens.end(), spec_.prompt.begin() + span.begin(),
                                    spec_.prompt.begin() + span.end());
  }
}

PlayedRequest::~PlayedRequest() {
  if (!started_) return;
  Cancel();
  for (const auto& leg : prefill_) leg->reader.join();
  decode_.reader.join();
}

v1::ReserveRequest PlayedRequest::ReserveRequestOf() const {
  v1::ReserveRequest request;
  request.set_request_id(id_);
  *request.mutable_plan() = plan_;
  request.set_total_tokens(plan_.prompt_tokens() + spec_.max_tokens);
  request.set_lease_seconds(spec_.lease_seconds);
  return request;
}

absl::Status PlayedRequest::Reserve() {
  const v1::ReserveRequest request = ReserveRequestOf();
  v1::ReserveResponse response;
  {
    grpc::ClientContext context;
    const grpc::Status status = decode_.stub->Reserve(&context, request, &response);
    if (!status.ok()) return service::FromGrpc(status);
    decode_.epoch = response.epoch();
    decode_.secret = response.secret();
  }
  for (const auto& leg : prefill_) {
    grpc::ClientContext context;
    const grpc::Status status = leg->stub->Reserve(&context, request, &response);
    if (!status.ok()) return service::FromGrpc(status);
    leg->epoch = response.epoch();
    leg->secret = response.secret();
  }
  return absl::OkStatus();
}

void PlayedRequest::Release() {
  v1::ReleaseRequest request;
  request.set_request_id(id_);
  v1::ReleaseResponse response;
  for (const auto& leg : prefill_) {
    grpc::ClientContext context;
    request.set_epoch(leg->epoch);
    leg->stub->Release(&context, request, &response);
  }
  grpc::ClientContext context;
  request.set_epoch(decode_.epoch);
  decode_.stub->Release(&context, request, &response);
}

void PlayedRequest::Start() {
  started_ = true;
  StartDecode();
  v1::PrefillStart start;
  start.set_request_id(id_);
  start.set_priority(spec_.priority);
  for (int i = 0; i < plan_.prefill_workers_size(); ++i) {
    v1::Subscriber& subscriber = *start.add_subscribers();
    subscriber.set_instance_id(plan_.prefill_workers(i).instance_id());
    subscriber.set_epoch(prefill_[i]->epoch);
    subscriber.set_secret(prefill_[i]->secret);
  }
  v1::Subscriber& subscriber = *start.add_subscribers();
  subscriber.set_instance_id(plan_.decode_worker().instance_id());
  subscriber.set_epoch(decode_.epoch);
  subscriber.set_secret(decode_.secret);
  // Every leg has its start before any event is passed on to it.
  for (const auto& leg : prefill_) StartPrefill(*leg, start);
  for (const auto& leg : prefill_) leg->reader = std::thread([this, raw = leg.get()] { ReadPrefill(*raw); });
  decode_.reader = std::thread([this] { ReadDecode(); });
}

void PlayedRequest::StartPrefill(PrefillLeg& leg, const v1::PrefillStart& start) {
  v1::PrefillCommand command;
  *command.mutable_start() = start;
  command.mutable_start()->set_epoch(leg.epoch);
  command.mutable_start()->mutable_tokens()->Add(leg.tokens.begin(), leg.tokens.end());
  if (spec_.prefill_start) spec_.prefill_start(*command.mutable_start());
  leg.stream = leg.stub->Prefill(&leg.context);
  leg.stream->Write(command);
}

void PlayedRequest::StartDecode() {
  v1::DecodeCommand command;
  v1::DecodeStart& start = *command.mutable_start();
  start.set_request_id(id_);
  start.set_epoch(decode_.epoch);
  start.set_max_tokens(spec_.max_tokens);
  start.mutable_sampling()->set_temperature(0);
  start.set_logprobs(-1);
  start.set_ignore_eos(true);
  if (spec_.decode_start) spec_.decode_start(start);
  decode_.stream = decode_.stub->Decode(&decode_.context);
  decode_.stream->Write(command);
}

template <typename Command, typename Event>
absl::Status PlayedRequest::End(Leg<Command, Event>& leg) {
  {
    // gRPC's synchronous streams must not be written from then on.
    std::lock_guard lock(leg.write_mutex);
    leg.writable = false;
  }
  return service::FromGrpc(leg.stream->Finish());
}

void PlayedRequest::ReadPrefill(PrefillLeg& leg) {
  v1::PrefillEvent event;
  while (leg.stream->Read(&event)) OnPrefillEvent(leg, event);
  OnEnd(End(leg), false);
}

void PlayedRequest::ReadDecode() {
  WaitUntilHearing();
  v1::DecodeEvent event;
  while (decode_.stream->Read(&event)) OnDecodeEvent(event);
  OnEnd(End(decode_), true);
}

void PlayedRequest::OnPrefillEvent(const PrefillLeg& from, const v1::PrefillEvent& event) {
  {
    std::lock_guard lock(mutex_);
    seen_.spans_started += event.has_span_started();
    seen_.spans_done += event.has_span_done();
    seen_.prefills_done += event.has_done();
    seen_.sent.set_items(seen_.sent.items() + event.done().items());
    seen_.sent.set_raw_bytes(seen_.sent.raw_bytes() + event.done().raw_bytes());
    seen_.sent.set_encoded_bytes(seen_.sent.encoded_bytes() + event.done().encoded_bytes());
    changed_.notify_all();
  }
  if (event.has_span_done()) SpanFinished(from, event.span_done().span());
}

void PlayedRequest::OnDecodeEvent(const v1::DecodeEvent& event) {
  std::lock_guard lock(mutex_);
  seen_.ready = seen_.ready || event.has_ready();
  seen_.tokens.insert(seen_.tokens.end(), event.tokens().ids().begin(), event.tokens().ids().end());
  seen_.logprobs.insert(seen_.logprobs.end(), event.tokens().logprobs().begin(), event.tokens().logprobs().end());
  if (event.has_finished()) {
    seen_.finished = true;
    seen_.finish = event.finished();
  }
  changed_.notify_all();
}

void PlayedRequest::SpanFinished(const PrefillLeg& from, int32_t span) {
  for (const auto& leg : prefill_) {
    if (leg.get() == &from) continue;
    v1::PrefillCommand command;
    command.mutable_span_finished()->set_span(span);
    std::lock_guard lock(leg->write_mutex);
    if (leg->writable) leg->stream->Write(command);
  }
  v1::DecodeCommand command;
  command.mutable_span_finished()->set_span(span);
  std::lock_guard lock(decode_.write_mutex);
  if (decode_.writable) decode_.stream->Write(command);
}

void PlayedRequest::OnEnd(const absl::Status& status, bool decode) {
  bool well = false;
  {
    std::lock_guard lock(mutex_);
    ++seen_.ended;
    well = status.ok() && decode && seen_.finished;
    if (!status.ok() && !cancelled_ && seen_.failure.ok()) seen_.failure = status;
    if (!status.ok()) cancelled_ = true;
    changed_.notify_all();
  }
  if (!status.ok()) decode_.context.TryCancel();
  if (decode || !status.ok()) EndPrefills(well);
}

void PlayedRequest::EndPrefills(bool well) {
  for (const auto& leg : prefill_) {
    if (!well) leg->context.TryCancel();
    std::lock_guard lock(leg->write_mutex);
    if (leg->writable) leg->stream->WritesDone();
    leg->writable = false;
  }
}

absl::Status PlayedRequest::Wait() {
  const int legs = static_cast<int>(prefill_.size()) + 1;
  if (!WaitUntil([legs](const Seen& seen) { return seen.ended == legs; })) {
    return absl::DeadlineExceededError("the request did not end");
  }
  // A stream that was cancelled before its start got through has claimed nothing.
  if (!seen().finished) Release();
  return seen().failure;
}

void PlayedRequest::Cancel() {
  {
    std::lock_guard lock(mutex_);
    cancelled_ = true;
  }
  Hear();
  decode_.context.TryCancel();
  for (const auto& leg : prefill_) leg->context.TryCancel();
}

void PlayedRequest::Hear() {
  std::lock_guard lock(mutex_);
  hears_ = true;
  changed_.notify_all();
}

void PlayedRequest::WaitUntilHearing() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return hears_; });
}

bool PlayedRequest::WaitUntil(const std::function<bool(const Seen&)>& condition) {
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, std::chrono::seconds(300), [&] { return condition(seen_); });
}

PlayedRequest::Seen PlayedRequest::seen() const {
  std::lock_guard lock(mutex_);
  return seen_;
}

}  // namespace salamander::testing
