#include "prefill_worker/executor.h"

#include <algorithm>
#include <limits>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/log.h"
#include "common/base/status_macros.h"
#include "common/worker/items.h"

namespace salamander::prefill {
namespace {

int64_t SpanTokens(const v1::SpanAssignment& span) { return span.end() - span.begin(); }

}  // namespace

absl::StatusOr<std::unique_ptr<Executor>> Executor::Create(worker::Host* host, const PrefillWorkerOptions& options) {
  std::unique_ptr<Executor> executor(new Executor(host, options));
  RETURN_IF_ERROR(executor->Prepare());
  executor->loop_.Start("prefill-engine", [raw = executor.get()] { return raw->Turn(); });
  return executor;
}

Executor::Executor(worker::Host* host, const PrefillWorkerOptions& options)
    : host_(host), options_(options), metrics_(host->metrics.get(), &load_) {}

absl::Status Executor::Prepare() {
  const engine::Model& model = *host_->model;
  MemoryLedger& ledger = *host_->ledger;
  ASSIGN_OR_RETURN(workspace_, engine::Workspace::Create(model, ledger, options_.max_span_tokens));
  for (int i = 0; i < options_.max_active_spans; ++i) {
    ASSIGN_OR_RETURN(std::unique_ptr<engine::SpanActivations> slot,
                     engine::SpanActivations::Create(model, ledger, options_.max_span_tokens));
    free_slots_.push_back(slot.get());
    slots_.push_back(std::move(slot));
  }
  receiver_ =
      std::make_unique<stream::Receiver>(stream::ReceiverOptions{.instance = host_->instance,
                                                                 .staging_bytes = options_.transfer_buffer_bytes,
                                                                 .missing_item_seconds = options_.missing_item_seconds},
                                         host_->transport.get(), &ledger, host_->stats.get());
  publisher_ = std::make_unique<stream::Publisher>(
      stream::PublisherOptions{.min_bytes_per_second = options_.min_link_bytes_per_second}, host_->transport.get(),
      &ledger, host_->stats.get());
  ASSIGN_OR_RETURN(request_bytes_, worker::RequestBudget(model, ledger, options_.transfer_buffer_bytes,
                                                         options_.transfer_buffer_bytes, options_.max_span_tokens));
  memory_ =
      std::make_unique<worker::RequestMemory>(&model, &ledger, receiver_.get(), &loop_, host_->clock, request_bytes_);
  return absl::OkStatus();
}

Executor::~Executor() {
  EndAll(absl::UnavailableError("the worker ends"));
  live_.WaitForZero();
  loop_.Stop();
}

void Executor::Reserve(const v1::ReserveRequest& request,
                       std::function<void(absl::StatusOr<v1::ReserveResponse>)> done) {
  loop_.Post([this, request, done = std::move(done)] { done(DoReserve(request)); });
}

void Executor::Release(const v1::ReleaseRequest& request, std::function<void()> done) {
  loop_.Post([this, epoch = request.epoch(), id = request.request_id(), done = std::move(done)] {
    // Unknown is fine: it has been released, which is what the caller wants.
    Request* found = Find(epoch);
    if (found != nullptr && found->id == id) Close(*found, absl::CancelledError("released"), "cancelled");
    done();
  });
}

PrefillStream::Handlers Executor::StreamHandlers() {
  return {.on_command =
              [this](const PrefillStream::Ptr& stream, v1::PrefillCommand command) {
                loop_.Post([this, stream, command = std::move(command)] { OnCommand(stream, command); });
              },
          .on_half_close = [this](const PrefillStream::Ptr& stream) { loop_.Post([=, this] { OnHalfClose(stream); }); },
          .on_cancel =
              [this](const PrefillStream::Ptr& stream) {
                loop_.Post([this, stream] {
                  Request* request = Find(stream->claimed_epoch);
                  if (request != nullptr) Close(*request, absl::CancelledError("the stream ended"), "cancelled");
                });
              }};
}

void Executor::StopReserving() {
  loop_.Post([this] { reserving_ = false; });
}

void Executor::EndAll(const absl::Status& status) {
  loop_.Post([this, status] {
    reserving_ = false;
    for (auto& [epoch, request] : requests_) Close(*request, status, "cancelled");
  });
}

absl::StatusOr<v1::ReserveResponse> Executor::DoReserve(const v1::ReserveRequest& request) {
  if (!reserving_) return absl::UnavailableError(absl::StrCat("worker ", host_->name, " is draining"));
  const v1::Plan& plan = request.plan();
  RETURN_IF_ERROR(worker::CheckRequestPlan(plan));
  ASSIGN_OR_RETURN(const int self, worker::FindPrefillWorker(plan, host_->instance));
  RETURN_IF_ERROR(CheckSpans(plan, self));
  RETURN_IF_ERROR(CheckLinks(plan, self));
  ASSIGN_OR_RETURN(std::unique_ptr<worker::Reservation> reserved,
                   memory_->Reserve(request, self, plan.prompt_tokens()));
  auto held = std::make_unique<Request>(std::move(reserved), worker::SparseLayers(*host_->model));
  held->order = next_order_++;
  for (const RequestSchedule::OwnSpan& span : held->schedule.spans()) {
    held->unfinished_tokens += SpanTokens(plan.spans(span.index));
  }
  load_.queued_tokens += held->unfinished_tokens;
  load_.requests += 1;
  live_.Add(1);
  Log(LogLevel::kInfo, absl::StrCat("request ", IdToString(held->id), ": reserved, epoch ", IdToString(held->epoch),
                                    ", ", plan.prompt_tokens(), " tokens, own ", held->unfinished_tokens));
  v1::ReserveResponse response;
  response.set_epoch(held->epoch);
  response.set_instance_id(host_->instance);
  requests_[held->epoch] = std::move(held);
  return response;
}

absl::Status Executor::CheckSpans(const v1::Plan& plan, int self) const {
  for (int i = 0; i < plan.spans_size(); ++i) {
    if (plan.spans(i).worker() != self || SpanTokens(plan.spans(i)) <= options_.max_span_tokens) continue;
    return absl::InvalidArgumentError(absl::StrCat("plan.spans[", i, "]: ", SpanTokens(plan.spans(i)),
                                                   " tokens, this worker runs at most ", options_.max_span_tokens));
  }
  return absl::OkStatus();
}

// A peer may have joined so lately that the router does not know yet that this worker is not ready for it.
absl::Status Executor::CheckLinks(const v1::Plan& plan, int self) const {
  std::set<InstanceId> warm;
  for (const stream::LinkInfo& link : publisher_->links()) {
    if (link.connected) warm.insert(link.peer);
  }
  std::vector<v1::PlanWorker> peers(plan.prefill_workers().begin(), plan.prefill_workers().end());
  peers.erase(peers.begin() + self);
  peers.push_back(plan.decode_worker());
  for (const v1::PlanWorker& peer : peers) {
    if (warm.contains(peer.instance_id())) continue;
    return absl::ResourceExhaustedError(absl::StrCat("the link from ", host_->name, " to ", peer.name(), " (",
                                                     IdToString(peer.instance_id()), ") is not warm"));
  }
  return absl::OkStatus();
}

void Executor::OnCommand(const PrefillStream::Ptr& stream, const v1::PrefillCommand& command) {
  if (stream->claimed_epoch == 0) {
    if (command.has_start()) {
      Claim(stream, command.start());
    } else {
      stream->Finish(absl::InvalidArgumentError("the first message must be `start`"));
    }
    return;
  }
  Request* request = Find(stream->claimed_epoch);
  if (request == nullptr) return;  // It has ended, and the stream with it.
  if (command.has_span_finished()) {
    OnSpanFinished(*request, command.span_finished().span());
  } else {
    Close(*request, absl::InvalidArgumentError("only `span_finished` may follow `start`"), "failed");
  }
}

void Executor::OnHalfClose(const PrefillStream::Ptr& stream) {
  if (stream->claimed_epoch == 0) {
    stream->Finish(absl::InvalidArgumentError("the stream was closed without a `start`"));
    return;
  }
  Request* request = Find(stream->claimed_epoch);
  if (request == nullptr) return;
  request->half_closed = true;
  if (request->state == RequestState::kDone) Close(*request, absl::OkStatus(), "ok");
}

void Executor::Claim(const PrefillStream::Ptr& stream, const v1::PrefillStart& start) {
  Request* request = Find(start.epoch());
  if (request == nullptr || request->id != start.request_id() || request->state == RequestState::kClosing) {
    stream->Finish(absl::NotFoundError(absl::StrCat("request ", IdToString(start.request_id()), ": no reservation ",
                                                    IdToString(start.epoch()), "; its lease may have ended")));
    return;
  }
  if (!Transition(*request, RequestEvent::kClaimed, "claimed")) {
    stream->Finish(absl::AlreadyExistsError(absl::StrCat("request ", IdToString(start.request_id()), ": reservation ",
                                                         IdToString(start.epoch()), " is claimed already")));
    return;
  }
  stream->claimed_epoch = request->epoch;
  request->stream = stream;
  request->reservation->lease_end = std::numeric_limits<double>::infinity();
  // A cancel that came before this claim found nothing to close.
  if (stream->ended()) return Close(*request, absl::CancelledError("the stream ended"), "cancelled");
  if (absl::Status taken = TakeStart(*request, start); !taken.ok()) return Close(*request, taken, "failed");
  FinishRequestIfSent(*request);  // A plan may leave this worker without a span.
}

absl::Status Executor::TakeStart(Request& request, const v1::PrefillStart& start) {
  const v1::Plan& plan = request.plan;
  if (start.subscribers_size() != plan.prefill_workers_size() + 1) {
    return absl::InvalidArgumentError(absl::StrCat("start.subscribers: ", start.subscribers_size(), " for ",
                                                   plan.prefill_workers_size(),
                                                   " prefill workers and one decode worker"));
  }
  if (start.tokens_size() != request.unfinished_tokens) {
    return absl::InvalidArgumentError(
        absl::StrCat("start.tokens: ", start.tokens_size(), " ids, own spans have ", request.unfinished_tokens));
  }
  const int64_t vocab_size = host_->model->config().vocab_size;
  for (int i = 0; i < start.tokens_size(); ++i) {
    if (start.tokens(i) >= 0 && start.tokens(i) < vocab_size) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("start.tokens[", i, "]: ", start.tokens(i), " is not in [0, ", vocab_size, ")"));
  }
  request.priority = start.priority();
  request.deadline = VirtualDeadline(host_->clock->Now(), plan.prompt_tokens(), kReferenceTokensPerSecond);
  request.tokens.assign(start.tokens().begin(), start.tokens().end());
  for (const v1::Subscriber& subscriber : start.subscribers()) {
    request.destinations.push_back({.instance = subscriber.instance_id(), .epoch = subscriber.epoch()});
  }
  const absl::Span<const int32_t> tokens = request.tokens;
  size_t offset = 0;
  for (const RequestSchedule::OwnSpan& own : request.schedule.spans()) {
    OwnSpan& span = request.spans.emplace_back();
    span.index = own.index;
    span.tokens = tokens.subspan(offset, SpanTokens(plan.spans(own.index)));
    offset += span.tokens.size();
  }
  return absl::OkStatus();
}

void Executor::OnSpanFinished(Request& request, int32_t span) {
  if (request.state == RequestState::kClosing) return;
  if (span < 0 || span >= request.plan.spans_size()) {
    Close(request,
          absl::InvalidArgumentError(
              absl::StrCat("span_finished.span: ", span, " is not in [0, ", request.plan.spans_size(), ")")),
          "failed");
    return;
  }
  request.reservation->subscription->SpanFinished(span);
}

Request* Executor::Find(uint64_t epoch) {
  const auto found = requests_.find(epoch);
  return found == requests_.end() ? nullptr : found->second.get();
}

bool Executor::Transition(Request& request, RequestEvent event, const std::string& why) {
  const std::optional<RequestState> next = NextState(request.state, event);
  if (!next.has_value()) return false;
  Log(LogLevel::kInfo,
      absl::StrCat("request ", IdToString(request.id), ": ", std::string(RequestStateName(request.state)), " -> ",
                   std::string(RequestStateName(*next)), ": ", why));
  request.state = *next;
  return true;
}

void Executor::Close(Request& request, const absl::Status& status, const std::string& outcome) {
  if (!Transition(request, RequestEvent::kReleased, status.ok() ? "done" : status.ToString())) return;
  if (request.stream != nullptr) request.stream->Finish(status);
  metrics_.Finished(outcome).Increment();
  for (OwnSpan& span : request.spans) FreeSlot(span);
  load_.queued_tokens -= request.unfinished_tokens;
  request.unfinished_tokens = 0;
  RetireIfIdle(request);
}

void Executor::RetireIfIdle(Request& request) {
  if (request.unsent_items > 0) return;
  memory_->Retire(std::move(request.reservation), [this, &request] {
    Transition(request, RequestEvent::kDrained, "memory is back");
    requests_.erase(request.epoch);
    load_.requests -= 1;
    live_.Add(-1);
  });
}

void Executor::FreeSlot(OwnSpan& span) {
  if (span.slot == nullptr) return;
  span.forward.reset();
  free_slots_.push_back(std::exchange(span.slot, nullptr));
  load_.active_spans -= 1;
}

}  // namespace salamander::prefill
