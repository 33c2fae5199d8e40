#include "prefill_worker/executor.h"

#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/log.h"
#include "common/base/status_macros.h"
#include "common/base/virtual_deadline.h"
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
  const engine::Model& model = host_->model();
  MemoryLedger& ledger = host_->ledger();
  ASSIGN_OR_RETURN(workspace_, engine::Workspace::Create(model, ledger, options_.max_span_tokens));
  for (int i = 0; i < options_.max_active_spans; ++i) {
    ASSIGN_OR_RETURN(std::unique_ptr<engine::SpanActivations> slot,
                     engine::SpanActivations::Create(model, ledger, options_.max_span_tokens));
    free_slots_.push_back(slot.get());
    slots_.push_back(std::move(slot));
  }
  publisher_ = std::make_unique<stream::Publisher>(
      stream::PublisherOptions{.min_bytes_per_second = options_.min_link_bytes_per_second}, host_->transport.get(),
      &ledger, host_->stats.get());
  for (worker::Host* neighbour : host_->neighbours) {
    publisher_->ServeLocally(neighbour->instance, neighbour->receiver.get());
  }
  ASSIGN_OR_RETURN(const int64_t budget,
                   worker::RequestBudget(*host_, options_.transfer_buffer_bytes, options_.max_span_tokens));
  requests_ =
      std::make_unique<worker::RequestTable<Request>>(host_, v1::WORKER_ROLE_PREFILL, &loop_, budget, /*hooks=*/this);
  return absl::OkStatus();
}

Executor::~Executor() {
  if (requests_ != nullptr) requests_->EndAndWait();
  loop_.Stop();
}

absl::StatusOr<std::unique_ptr<Request>> Executor::Admit(const v1::ReserveRequest& request) {
  const v1::Plan& plan = request.plan();
  ASSIGN_OR_RETURN(const int self, worker::FindPrefillWorker(plan, host_->instance));
  RETURN_IF_ERROR(CheckSpans(plan, self));
  RETURN_IF_ERROR(CheckLinks(plan, self));
  ASSIGN_OR_RETURN(std::unique_ptr<worker::Reservation> reserved,
                   requests_->memory().Reserve(request, self, plan.prompt_tokens()));
  auto held = std::make_unique<Request>(std::move(reserved), worker::SparseLayers(host_->model()));
  held->order = next_order_++;
  for (const RequestSchedule::OwnSpan& span : held->schedule.spans()) {
    held->unfinished_tokens += SpanTokens(plan.spans(span.index));
  }
  load_.queued_tokens += held->unfinished_tokens;
  return held;
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
  const int64_t vocab_size = host_->model().config().vocab_size;
  for (int i = 0; i < start.tokens_size(); ++i) {
    if (start.tokens(i) >= 0 && start.tokens(i) < vocab_size) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("start.tokens[", i, "]: ", start.tokens(i), " is not in [0, ", vocab_size, ")"));
  }
  request.priority = start.priority();
  request.deadline = VirtualDeadline(host_->clock->Now(), plan.prompt_tokens());
  request.tokens.assign(start.tokens().begin(), start.tokens().end());
  for (const v1::Subscriber& subscriber : start.subscribers()) {
    request.destinations.push_back(
        {.instance = subscriber.instance_id(), .epoch = subscriber.epoch(), .secret = subscriber.secret()});
  }
  const absl::Span<const int32_t> tokens = request.tokens;
  size_t offset = 0;
  for (const RequestSchedule::OwnSpan& own : request.schedule.spans()) {
    OwnSpan& span = request.spans.emplace_back();
    span.index = own.index;
    span.tokens = tokens.subspan(offset, SpanTokens(plan.spans(own.index)));
    offset += span.tokens.size();
  }
  FinishRequestIfSent(request);  // A plan may leave this worker without a span.
  return absl::OkStatus();
}

void Executor::OnHalfClose(Request& request) {
  request.half_closed = true;
  if (request.state == worker::RequestState::kDone) requests_->Close(request, absl::OkStatus(), "ok");
}

void Executor::OnClose(Request& request) {
  for (OwnSpan& span : request.spans) FreeSlot(span);
  load_.queued_tokens -= request.unfinished_tokens;
  request.unfinished_tokens = 0;
}

void Executor::FreeSlot(OwnSpan& span) {
  if (span.slot == nullptr) return;
  span.forward.reset();
  free_slots_.push_back(std::exchange(span.slot, nullptr));
  load_.active_spans -= 1;
}

}  // namespace salamander::prefill
