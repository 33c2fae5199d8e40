#include "router/request.h"

#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/log.h"
#include "common/base/status_macros.h"
#include "router/leg_status.h"

namespace salamander::router {
namespace {

// A worker that cannot be reached for a reservation has cost nothing yet: the request goes back to the queue, to be
// placed by newer knowledge, this often.
constexpr int kLostReserves = 3;

// A prompt of so few token ids is checked where it arrives: that takes less time than waking another thread.
constexpr int kInlineIds = 8192;

// A cancel this close to the deadline is the deadline's: gRPC reports both alike.
constexpr double kDeadlineSlackSeconds = 0.01;

v1::GenerateResponse Response(v1::Progress progress) {
  v1::GenerateResponse response;
  *response.mutable_progress() = std::move(progress);
  return response;
}

}  // namespace

template <typename Closure>
void Request::Post(Closure closure) {
  executor_.Post([self = shared_from_this(), closure = std::move(closure)]() mutable { closure(); });
}

template <typename Closure>
void Request::Run(Closure closure) {
  executor_.Run([self = shared_from_this(), closure = std::move(closure)]() mutable { closure(); });
}

std::shared_ptr<Request> Request::Start(const RequestContext* context, const v1::GenerateRequest& wire,
                                        const CallInfo& call, ApiKey::Ptr key, ClientStream* client) {
  std::shared_ptr<Request> request(new Request(context, wire, call, std::move(key), client));
  context->active->Add(request->id_, request);
  if (context->max_request_seconds > 0) {
    context->timer->After(context->max_request_seconds, [weak = std::weak_ptr(request)] {
      if (const std::shared_ptr<Request> alive = weak.lock()) alive->Expire();
    });
  }
  const auto check = [request] {
    auto checked = std::make_shared<absl::StatusOr<Checked>>(request->Check());
    request->Run([self = request.get(), checked] { self->OnChecked(std::move(*checked)); });
  };
  if (wire.prompt().has_tokens() && wire.prompt().tokens().ids_size() <= kInlineIds) {
    check();
  } else {
    context->text->Post(check);
  }
  return request;
}

Request::Request(const RequestContext* context, const v1::GenerateRequest& wire, const CallInfo& call, ApiKey::Ptr key,
                 ClientStream* client)
    : context_(*context),
      alive_(context->active->Token()),
      id_(RandomId()),
      call_(call),
      key_(std::move(key)),
      wire_(wire),
      client_(client),
      executor_(context->supervision),
      timing_(context->clock->Now()) {}

Request::~Request() { context_.active->Remove(id_); }

void Request::Cancel() {
  Run([this] {
    Fail(SecondsLeft() <= kDeadlineSlackSeconds
             ? absl::DeadlineExceededError(absl::StrCat("the deadline passed while ", StateName(state_)))
             : absl::CancelledError(absl::StrCat("the client cancelled while ", StateName(state_))));
  });
}

void Request::Expire() {
  Post([this] {
    Fail(absl::DeadlineExceededError(absl::StrCat("the limit of ", context_.max_request_seconds,
                                                  " s for a request passed while ", StateName(state_))));
  });
}

void Request::Abort(const absl::Status& status) {
  Post([this, status] {
    Fail(status);
    EndLegs();  // Also those of a finished request that are only closing.
  });
}

void Request::WorkerGone(InstanceId instance, const std::string& reason) {
  Post([this, instance, reason] {
    const absl::Status gone = absl::UnavailableError(reason);
    const auto on_loss = [&](const std::string& title) {
      if (state_ == RequestState::kReserving) {
        OnReserveFailed(title, gone);
      } else {
        Fail(LegError(title, gone));
      }
    };
    if (decode_ != nullptr && decode_->instance() == instance) return on_loss(decode_->title());
    if (state_ == RequestState::kDecoding) return;  // The prefill workers have done their part.
    for (const auto& leg : prefill_) {
      if (leg->instance() == instance) return on_loss(leg->title());
    }
  });
}

// ------------------------------------------------------------------------------------------ checking and queueing

absl::StatusOr<Request::Checked> Request::Check() const {
  Checked checked;
  ASSIGN_OR_RETURN(checked.options, CheckOptions(wire_, context_.limits));
  ASSIGN_OR_RETURN(checked.tokens, PromptTokens(wire_.prompt(), *context_.model));
  ASSIGN_OR_RETURN(const int64_t max_tokens, CheckMaxTokens(wire_, checked.tokens.size(), context_.limits));
  checked.options.set_request_id(id_);
  checked.options.set_max_tokens(max_tokens);
  if (!checked.options.sampling().has_seed()) checked.options.mutable_sampling()->set_seed(RandomId());
  return checked;
}

void Request::OnChecked(absl::StatusOr<Checked> checked) {
  if (IsFinal(state_)) return;
  if (!checked.ok()) return Fail(checked.status());
  options_ = std::move(checked->options);
  tokens_ = std::move(checked->tokens);
  priority_ = wire_.priority();
  wire_.Clear();

  const auto prompt_tokens = static_cast<int64_t>(tokens_.size());
  const Demand demand{.prompt_tokens = prompt_tokens, .total_tokens = prompt_tokens + options_.max_tokens()};
  if (key_ != nullptr) {
    const Verdict verdict = key_->TakeTokens(demand.total_tokens);
    if (!verdict.status.ok()) return Fail(verdict.status, verdict.retry_after_seconds);
    tokens_taken_ = demand.total_tokens;
  }
  absl::Status chances = CheckChances(demand);
  if (chances.ok()) {
    auto ticket = context_.admission->Enqueue(
        priority_, demand, [self = shared_from_this()](absl::StatusOr<Placement> placement) {
          auto shared = std::make_shared<absl::StatusOr<Placement>>(std::move(placement));
          self->Post([self = self.get(), shared] { self->OnAdmitted(std::move(*shared)); });
        });
    if (ticket.ok()) {
      ticket_ = *ticket;
      work_ = context_.backlog->Add(priority_, prompt_tokens);
    }
    chances = ticket.status();
  }
  if (chances.code() == absl::StatusCode::kResourceExhausted) return Refuse(chances.message());
  if (!chances.ok()) return Fail(chances);

  if (!Move(RequestEvent::kAccepted,
            absl::StrCat(prompt_tokens, " prompt tokens, at most ", options_.max_tokens(), " more"))) {
    return;
  }
  v1::GenerateResponse response;
  response.mutable_accepted()->set_request_id(IdToString(id_));
  response.mutable_accepted()->set_prompt_tokens(prompt_tokens);
  client_->Send(std::move(response));
  LimitWait();
}

absl::Status Request::CheckChances(const Demand& demand) {
  RETURN_IF_ERROR(context_.placer->CheckPossible(demand));
  const double rate = context_.placer->Load().tokens_per_second;
  const int64_t ahead = context_.backlog->TokensAhead(priority_, demand.prompt_tokens);
  RETURN_IF_ERROR(CheckDeadline(SecondsLeft(), demand.prompt_tokens, ahead, rate));
  return CheckWait(ahead, rate, context_.max_queue_seconds);
}

void Request::LimitWait() {
  const double limit = context_.max_queue_seconds;
  if (limit <= 0) return;
  context_.timer->After(limit, [weak = weak_from_this(), wait = ++waits_, limit] {
    const std::shared_ptr<Request> alive = weak.lock();
    if (alive == nullptr) return;
    alive->Post([self = alive.get(), wait, limit] {
      if (self->state_ != RequestState::kQueued || self->waits_ != wait) return;
      self->Refuse(absl::StrCat("no worker had room for ", limit, " s, the limit of a wait in the queue"));
    });
  });
}

void Request::Refuse(absl::string_view why) {
  const PrefillLoad load = context_.placer->Load();
  const double seconds = RetryAfterSeconds(load.tokens + context_.admission->queued_tokens(), load.tokens_per_second);
  Fail(absl::ResourceExhaustedError(absl::StrCat(why, "; retry in ", seconds, " s")), seconds);
}

void Request::OnAdmitted(absl::StatusOr<Placement> placement) {
  if (IsFinal(state_)) return;
  if (!placement.ok()) return Fail(placement.status());
  if (!Move(RequestEvent::kAdmitted, absl::StrCat(placement->plan.spans_size(), " spans on ", placement->prefill.size(),
                                                  " prefill workers, ", placement->decode.title))) {
    return;
  }
  MakeLegs(std::move(*placement));
  v1::ReserveRequest reserve;
  reserve.set_request_id(id_);
  *reserve.mutable_plan() = plan_;
  reserve.set_total_tokens(plan_.prompt_tokens() + options_.max_tokens());
  reserve.set_lease_seconds(context_.lease_seconds);
  // The decode worker first: its memory is the scarce one, and prefill workers hold nothing while it is refused.
  decode_->Reserve(reserve, [this](const absl::Status& status) {
    if (!status.ok()) return OnReserveFailed(decode_->title(), status);
    ReservePrefill();
  });
}

// ------------------------------------------------------------------------------------------ reserving

void Request::MakeLegs(Placement placement) {
  plan_ = std::move(placement.plan);
  const LegScope scope{.request = id_,
                       .trace = call_.trace,
                       .executor = executor_,
                       .deadline = call_.deadline,
                       .lease_seconds = context_.lease_seconds,
                       .alive = alive_,
                       .owner = shared_from_this()};
  decode_ = std::make_shared<DecodeLeg>(scope, std::move(placement.decode));
  for (PlacedWorker& worker : placement.prefill) {
    prefill_.push_back(std::make_shared<PrefillLeg>(scope, std::move(worker)));
  }
}

void Request::ReservePrefill() {
  v1::ReserveRequest reserve;
  reserve.set_request_id(id_);
  *reserve.mutable_plan() = plan_;
  reserve.set_lease_seconds(context_.lease_seconds);
  reserves_missing_ = static_cast<int>(prefill_.size());
  for (size_t i = 0; i < prefill_.size(); ++i) {
    prefill_[i]->Reserve(reserve, [this, i](const absl::Status& status) {
      if (!status.ok()) return OnReserveFailed(prefill_[i]->title(), status);
      if (--reserves_missing_ == 0) OpenLegs();
    });
  }
}

void Request::OnReserveFailed(const std::string& title, const absl::Status& status) {
  const absl::Status error = LegError(title, status);
  const bool lost = status.code() != absl::StatusCode::kResourceExhausted;
  if (!IsRetryable(status) || (lost && ++lost_reserves_ >= kLostReserves)) return Fail(error);
  EndLegs();
  if (!Move(RequestEvent::kNoMemory, std::string(error.message()))) return;
  context_.metrics->Requeued(lost);
  context_.admission->Requeue(*ticket_);
  LimitWait();
}

// ------------------------------------------------------------------------------------------ running

void Request::OpenLegs() {
  if (!Move(RequestEvent::kReserved)) return;
  progress_.emplace(plan_);
  prompt_tokens_run_ = plan_.prompt_tokens();
  v1::DecodeCommand start;
  *start.mutable_start() = options_;
  start.mutable_start()->set_epoch(decode_->epoch());
  if (options_.sampling().repetition_penalty() != 1) {
    start.mutable_start()->mutable_prompt_tokens()->Assign(tokens_.begin(), tokens_.end());
  }
  decode_->Open(
      std::move(start), [this](v1::DecodeEvent event) { OnDecodeEvent(std::move(event)); },
      [this](const absl::Status& status) { Fail(LegError(decode_->title(), status)); });
  for (size_t i = 0; i < prefill_.size(); ++i) {
    const int worker = static_cast<int>(i);
    v1::PrefillCommand command;
    *command.mutable_start() = StartFor(worker);
    prefill_[i]->Open(
        std::move(command), [this, worker](const v1::PrefillEvent& event) { OnPrefillEvent(worker, event); },
        [this, worker](const absl::Status& status) { Fail(LegError(prefill_[worker]->title(), status)); });
  }
  timing_.PrefillSent(context_.clock->Now());
}

v1::PrefillStart Request::StartFor(int worker) const {
  v1::PrefillStart start;
  start.set_request_id(id_);
  start.set_epoch(prefill_[worker]->epoch());
  start.set_priority(priority_);
  for (const v1::SpanAssignment& span : plan_.spans()) {
    if (span.worker() != worker) continue;
    start.mutable_tokens()->Add(tokens_.begin() + span.begin(), tokens_.begin() + span.end());
  }
  const auto add_subscriber = [&start](const auto& leg) {
    v1::Subscriber* subscriber = start.add_subscribers();
    subscriber->set_instance_id(leg.instance());
    subscriber->set_epoch(leg.epoch());
    subscriber->set_secret(leg.secret());
  };
  for (const auto& leg : prefill_) add_subscriber(*leg);
  add_subscriber(*decode_);
  return start;
}

void Request::OnPrefillEvent(int worker, const v1::PrefillEvent& event) {
  const int32_t span = event.has_span_started()    ? event.span_started().span()
                       : event.has_span_progress() ? event.span_progress().span()
                       : event.has_span_done()     ? event.span_done().span()
                                                   : -1;
  if (span < 0) return;  // PrefillDone, or an event of a later version.
  if (absl::Status owner = progress_->CheckOwner(span, worker); !owner.ok()) {
    return Fail(LegError(prefill_[worker]->title(), owner));
  }
  if (event.has_span_started()) timing_.SpanStarted(context_.clock->Now());
  if (event.has_span_progress()) {
    progress_->Advance(span, event.span_progress().tokens_done());
    if (progress_->all_computed()) timing_.Prefilled(context_.clock->Now());
  }
  if (event.has_span_done()) OnSpanDone(worker, span);
  if (!IsFinal(state_)) SendProgress();
}

void Request::OnSpanDone(int worker, int32_t span) {
  if (!progress_->Finish(span)) return;
  const int64_t tokens = plan_.spans(span).end() - plan_.spans(span).begin();
  prefill_[worker]->load().FinishTokens(tokens);
  work_->FinishTokens(tokens);
  for (size_t i = 0; i < prefill_.size(); ++i) {
    if (static_cast<int>(i) == worker) continue;
    v1::PrefillCommand command;
    command.mutable_span_finished()->set_span(span);
    prefill_[i]->Send(std::move(command));
  }
  v1::DecodeCommand command;
  command.mutable_span_finished()->set_span(span);
  decode_->Send(std::move(command));
  if (progress_->all_done()) {
    timing_.Prefilled(context_.clock->Now());
    Move(RequestEvent::kPrefilled);
  }
}

void Request::OnDecodeEvent(v1::DecodeEvent event) {
  if (event.has_ready()) return OnReady();
  const bool in_turn = state_ == RequestState::kDecoding;
  if ((event.has_tokens() || event.has_finished()) && !in_turn) {
    return Fail(absl::InternalError(absl::StrCat(decode_->title(), " sent tokens before it was ready")));
  }
  if (event.has_first_token()) {
    timing_.FirstTokenAtWorker(event.first_token().decode_queue_seconds(), event.first_token().first_step_seconds());
  }
  if (event.has_tokens()) OnTokens(std::move(*event.mutable_tokens()));
  if (event.has_finished()) OnCompleted(event.finished());
}

void Request::OnReady() {
  // The streams of the prefill workers are others, so this may overtake their last spans' ends; they are certain now.
  timing_.Prefilled(context_.clock->Now());
  for (int span = 0; span < plan_.spans_size(); ++span) progress_->Finish(span);
  work_ = nullptr;
  if (!Move(RequestEvent::kReady)) return;
  for (const auto& leg : prefill_) leg->Close();
  SendProgress();
}

void Request::OnTokens(v1::TokenChunk chunk) {
  const double now = context_.clock->Now();
  const bool first = completion_tokens_ == 0 && chunk.ids_size() > 0;
  completion_tokens_ += chunk.ids_size();
  const std::optional<double> gap = timing_.Tokens(now, chunk.ids_size());
  if (gap.has_value()) context_.metrics->inter_token_seconds.Observe(*gap);
  if (first) context_.metrics->FirstToken(timing_.Report(now));
  v1::GenerateResponse response;
  *response.mutable_tokens() = std::move(chunk);
  client_->Send(std::move(response));
}

void Request::OnCompleted(const v1::DecodeFinished& worker) {
  v1::GenerateResponse response;
  v1::Finished* finished = response.mutable_finished();
  finished->set_reason(worker.reason());
  finished->mutable_usage()->set_prompt_tokens(plan_.prompt_tokens());
  finished->mutable_usage()->set_completion_tokens(worker.completion_tokens());
  const double now = context_.clock->Now();
  *finished->mutable_timing() = timing_.Report(now);
  for (const v1::SpanAssignment& span : plan_.spans()) {
    v1::PlannedSpan* planned = finished->add_spans();
    planned->set_begin(span.begin());
    planned->set_end(span.end());
    planned->set_worker(plan_.prefill_workers(span.worker()).name());
  }
  finished->set_decode_worker(plan_.decode_worker().name());
  finished->set_seed(options_.sampling().seed());
  if (!Move(RequestEvent::kCompleted,
            absl::StrCat(worker.completion_tokens(), " tokens, ttft ", finished->timing().ttft(), " s"))) {
    return;
  }
  context_.metrics->Completed(*finished, now - timing_.arrived());
  decode_->Close();  // As the prefill legs; this request lives on until the workers have ended their streams.
  GiveBack(absl::StatusCode::kOk);
  std::exchange(client_, nullptr)->Complete(std::move(response));
}

void Request::SendProgress() {
  const double now = context_.clock->Now();
  if (auto progress = progress_->Message(now, timing_.SecondsSincePrefillBegan(now))) {
    client_->Send(Response(*std::move(progress)));
  }
}

// ------------------------------------------------------------------------------------------ ending

void Request::Fail(const absl::Status& status, std::optional<double> retry_after_seconds) {
  if (IsFinal(state_)) return;
  Move(RequestEvent::kFail, status.ToString());
  EndLegs();
  GiveBack(status.code());
  std::exchange(client_, nullptr)->Fail(status, retry_after_seconds);
}

void Request::EndLegs() {
  if (decode_ != nullptr) decode_->End();
  for (const auto& leg : prefill_) leg->End();
  decode_ = nullptr;
  prefill_.clear();
}

void Request::GiveBack(absl::StatusCode outcome) {
  // First: who sees the router idle sees the key's places free.
  if (key_ != nullptr) key_->EndRequest(outcome, tokens_taken_, prompt_tokens_run_, completion_tokens_);
  work_ = nullptr;
  if (ticket_.has_value()) context_.admission->Leave(*ticket_);
  context_.metrics->Ended(outcome);
}

bool Request::Move(RequestEvent event, const std::string& detail) {
  const std::optional<RequestState> next = NextState(state_, event);
  if (!next.has_value()) {
    Fail(absl::InternalError(absl::StrCat("unexpected event ", static_cast<int>(event), " while ", StateName(state_))));
    return false;
  }
  Log(*next == RequestState::kFailed ? LogLevel::kWarning : LogLevel::kInfo,
      std::string(absl::StrCat(RequestLabel(id_, call_.trace.trace_id()), ": ", StateName(state_), " -> ",
                               StateName(*next), detail.empty() ? "" : ": ", detail)));
  state_ = *next;
  return true;
}

double Request::SecondsLeft() const {
  if (call_.deadline == Deadline::max()) return std::numeric_limits<double>::infinity();
  return std::chrono::duration<double>(call_.deadline - std::chrono::system_clock::now()).count();
}

}  // namespace salamander::router
