// The part of the executor that works: one phase of one span per turn, and the items it makes.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/log.h"
#include "common/base/status_macros.h"
#include "common/worker/items.h"
#include "prefill_worker/executor.h"

namespace salamander::prefill {
namespace {

using engine::SpanPhase;
using worker::RequestEvent;
using worker::RequestState;

constexpr double kProgressSeconds = 0.2;

// Steps that a device may be behind. What it is about to compute can no longer be reordered or cancelled.
constexpr size_t kStepsAhead = 3;

}  // namespace

double Executor::Turn() {
  const double until_lease = requests_->EndOverdue();
  // Woken when a send has ended.
  if (publisher_->outstanding_bytes() > options_.transfer_buffer_bytes) return until_lease;

  struct Ready {
    Request* request;
    size_t position;
  };
  std::vector<Ready> ready;
  std::vector<Candidate> candidates;
  for (auto& [epoch, request] : requests_->all()) {
    if (request->state != RequestState::kRunning) continue;
    const bool may_start =
        !free_slots_.empty() && request->schedule.active() < SlotsPerRequest(options_.max_active_spans);
    const stream::Subscription& subscription = *request->reservation->subscription;
    const std::optional<size_t> position =
        request->schedule.Next([&](const stream::ItemId& id) { return subscription.Has(id); }, may_start);
    if (!position.has_value()) continue;
    ready.push_back({request.get(), *position});
    candidates.push_back({.priority = request->priority, .deadline = request->deadline, .order = request->order});
  }
  const int chosen = PickCandidate(candidates);
  if (chosen < 0) return until_lease;
  StepSpan(*ready[chosen].request, ready[chosen].position);
  return worker::EngineLoop::kAgain;
}

void Executor::StepSpan(Request& request, size_t position) {
  OwnSpan& span = request.spans[position];
  if (span.slot == nullptr) StartSpan(request, span);
  const int64_t layer = span.forward->layer();
  const SpanPhase phase = span.forward->phase();
  const double begun = host_->clock->Now();
  absl::Status status = span.forward->Step();
  if (status.ok()) status = Record(span.forward->phase() == SpanPhase::kFinished);
  span.compute_seconds += host_->clock->Now() - begun;
  if (status.ok()) {
    request.schedule.Advance(position);
    status = PublishStep(request, position, layer, phase);
  }
  if (!status.ok()) {
    requests_->Close(request, Annotate(status, absl::StrCat("span ", span.index, ", layer ", layer)), "failed");
    return;
  }
  ReportProgress(request, span);
  if (span.forward->phase() == SpanPhase::kFinished) FinishCompute(request, position);
}

absl::Status Executor::Record(bool wait_for_all) {
  steps_.push_back(host_->ops().Record());
  while (steps_.size() > (wait_for_all ? 0 : kStepsAhead)) {
    RETURN_IF_ERROR(steps_.front()->Wait());
    last_step_ = std::move(steps_.front());
    steps_.pop_front();
  }
  if (!steps_.empty()) last_step_ = steps_.back();
  return absl::OkStatus();
}

void Executor::StartSpan(Request& request, OwnSpan& span) {
  span.slot = free_slots_.back();
  free_slots_.pop_back();
  load_.active_spans += 1;
  span.started = host_->clock->Now();
  span.forward.emplace(*request.reservation->sequence, *workspace_, *span.slot, span.tokens,
                       request.plan.spans(span.index).begin(), request.plan.prompt_tokens());
  v1::PrefillEvent event;
  event.mutable_span_started()->set_span(span.index);
  request.stream->Send(std::move(event));
}

void Executor::ReportProgress(Request& request, const OwnSpan& span) {
  const double now = host_->clock->Now();
  const auto tokens = static_cast<int64_t>(span.tokens.size());
  const bool computed = span.forward->phase() == SpanPhase::kFinished;
  if (!computed && now < request.last_progress + kProgressSeconds) return;
  request.last_progress = now;
  v1::PrefillEvent event;
  v1::SpanProgress& progress = *event.mutable_span_progress();
  progress.set_span(span.index);
  progress.set_tokens_done(computed ? tokens : tokens * span.forward->layer() / host_->model().layers());
  request.stream->Send(std::move(event));
}

absl::Status Executor::PublishStep(Request& request, size_t position, int64_t layer, SpanPhase phase) {
  const OwnSpan& span = request.spans[position];
  const bool sparse = host_->model().is_sparse(layer);
  stream::ItemId id{.layer = static_cast<int32_t>(layer), .span = span.index};
  if (sparse && phase == SpanPhase::kProject) {
    id.kind = v1::ITEM_KIND_KEYS_VALUES;
    stream::ItemSource source = OnDevice();
    for (absl::Span<std::byte> run :
         request.reservation->sequence->KvBytes(layer, span.forward->begin(), span.forward->end())) {
      source.runs.push_back(run);
    }
    Publish(request, position, id, std::move(source), nullptr);
  } else if (!sparse && phase == SpanPhase::kMix) {
    // From where it is: nothing overwrites it before its receivers have it, as this worker's next span needs the state
    // that they make of it.
    id.kind = v1::ITEM_KIND_STATE;
    stream::ItemSource source = OnDevice();
    source.runs.push_back(request.reservation->sequence->State(layer));
    Publish(request, position, id, std::move(source), nullptr);
  }
  const bool last_step = span.forward->phase() == SpanPhase::kFinished;
  const bool last_span = span.index + 1 == request.plan.spans_size();
  return last_step && last_span ? PublishHidden(request, position) : absl::OkStatus();
}

stream::ItemSource Executor::OnDevice() const {
  return {.runs = {}, .memory = host_->device->item_memory(), .ready = [step = last_step_] { return step->Wait(); }};
}

absl::Status Executor::PublishHidden(Request& request, size_t position) {
  ASSIGN_OR_RETURN(std::vector<float> row, request.spans[position].forward->LastHidden());
  auto hidden = std::make_shared<std::vector<float>>(std::move(row));
  const auto* bytes = reinterpret_cast<const std::byte*>(hidden->data());
  Publish(request, position, {.kind = v1::ITEM_KIND_HIDDEN, .layer = 0, .span = request.spans[position].index},
          {.runs = {absl::MakeConstSpan(bytes, hidden->size() * sizeof(float))}}, hidden);
  return absl::OkStatus();
}

void Executor::Publish(Request& request, size_t position, const stream::ItemId& id, stream::ItemSource source,
                       std::shared_ptr<void> keep) {
  stream::PublishedItem item{.request = request.id,
                             .id = id,
                             .shape = worker::ShapeOf(host_->model(), id.kind),
                             .codec = request.plan.codec(),
                             .source = std::move(source),
                             .destinations = {},
                             .encoded_bytes = &request.sent_encoded_bytes};
  for (int worker : stream::Destinations(request.plan, id)) {
    item.destinations.push_back(worker == stream::kDecodeWorker ? request.destinations.back()
                                                                : request.destinations[worker]);
  }
  if (item.destinations.empty()) return;
  ++request.unsent_items;
  ++request.spans[position].unsent_items;
  request.sent_items += static_cast<int64_t>(item.destinations.size());
  request.sent_raw_bytes += item.source.bytes() * static_cast<int64_t>(item.destinations.size());
  publisher_->Publish(std::move(item), [this, epoch = request.epoch, position, keep](const absl::Status& status) {
    loop_.Post([this, epoch, position, status] { OnPublished(epoch, position, status); });
  });
}

void Executor::OnPublished(uint64_t epoch, size_t position, const absl::Status& status) {
  Request& request = *requests_->Find(epoch);  // Lives until its last send has ended.
  --request.unsent_items;
  --request.spans[position].unsent_items;
  if (request.state == RequestState::kClosing) {
    requests_->RetireIfIdle(request);
  } else if (!status.ok()) {
    requests_->Close(request, status, "failed");
  } else {
    FinishSpanIfSent(request, position);
  }
}

void Executor::FinishCompute(Request& request, size_t position) {
  OwnSpan& span = request.spans[position];
  const auto tokens = static_cast<int64_t>(span.tokens.size());
  span.computed = true;
  span.seconds = host_->clock->Now() - span.started;
  FreeSlot(span);
  request.unfinished_tokens -= tokens;
  load_.queued_tokens -= tokens;
  metrics_.tokens.Increment(static_cast<double>(tokens));
  metrics_.span_seconds.Observe(span.seconds);
  metrics_.span_compute_seconds.Observe(span.compute_seconds);
  load_.tokens_per_second.Add(tokens, span.compute_seconds);
  FinishSpanIfSent(request, position);
}

void Executor::FinishSpanIfSent(Request& request, size_t position) {
  OwnSpan& span = request.spans[position];
  if (!span.computed || span.unsent_items > 0) return;
  ++request.spans_done;
  v1::PrefillEvent event;
  v1::SpanDone& done = *event.mutable_span_done();
  done.set_span(span.index);
  done.set_seconds(span.seconds);
  done.set_compute_seconds(span.compute_seconds);
  request.stream->Send(std::move(event));
  FinishRequestIfSent(request);
}

void Executor::FinishRequestIfSent(Request& request) {
  if (request.spans_done < request.spans.size()) return;
  requests_->Transition(request, RequestEvent::kAllSent, absl::StrCat(request.sent_items, " items sent"));
  v1::PrefillEvent event;
  v1::PrefillDone& done = *event.mutable_done();
  done.set_items(request.sent_items);
  done.set_raw_bytes(request.sent_raw_bytes);
  done.set_encoded_bytes(request.sent_encoded_bytes);
  request.stream->Send(std::move(event));
  if (request.half_closed) requests_->Close(request, absl::OkStatus(), "ok");
}

}  // namespace salamander::prefill
