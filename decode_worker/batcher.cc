#include "decode_worker/batcher.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/log.h"
#include "common/base/status_macros.h"
#include "common/worker/items.h"
#include "decode_worker/start.h"

namespace salamander::decode {

absl::StatusOr<std::unique_ptr<Batcher>> Batcher::Create(worker::Host* host, const DecodeWorkerOptions& options) {
  std::unique_ptr<Batcher> batcher(new Batcher(host, options));
  RETURN_IF_ERROR(batcher->Prepare());
  batcher->loop_.Start("decode-engine", [raw = batcher.get()] { return raw->Turn(); });
  return batcher;
}

Batcher::Batcher(worker::Host* host, const DecodeWorkerOptions& options)
    : host_(host), options_(options), metrics_(host->metrics.get(), &load_) {}

absl::Status Batcher::Prepare() {
  const engine::Model& model = *host_->model;
  MemoryLedger& ledger = *host_->ledger;
  absl::StatusOr<std::unique_ptr<model::Tokenizer>> tokenizer = model::Tokenizer::Load(host_->checkpoint->folder());
  if (tokenizer.ok()) {
    tokenizer_ = *std::move(tokenizer);
  } else if (absl::IsNotFound(tokenizer.status())) {
    Log(LogLevel::kInfo, "the model has no tokenizer.model: answers are token ids without text");
  } else {
    return tokenizer.status();
  }
  ASSIGN_OR_RETURN(forward_, engine::DecodeForward::Create(model, ledger, options_.max_batch));
  receiver_ =
      std::make_unique<stream::Receiver>(stream::ReceiverOptions{.instance = host_->instance,
                                                                 .staging_bytes = options_.transfer_buffer_bytes,
                                                                 .missing_item_seconds = options_.missing_item_seconds},
                                         host_->transport.get(), &ledger, host_->stats.get());
  ASSIGN_OR_RETURN(request_bytes_, worker::RequestBudget(model, ledger, options_.transfer_buffer_bytes,
                                                         /*send_bytes=*/0, /*max_item_tokens=*/0));
  memory_ =
      std::make_unique<worker::RequestMemory>(&model, &ledger, receiver_.get(), &loop_, host_->clock, request_bytes_);
  return absl::OkStatus();
}

Batcher::~Batcher() {
  EndAll(absl::UnavailableError("the worker ends"));
  live_.WaitForZero();
  loop_.Stop();
}

void Batcher::Reserve(const v1::ReserveRequest& request,
                      std::function<void(absl::StatusOr<v1::ReserveResponse>)> done) {
  loop_.Post([this, request, done = std::move(done)] { done(DoReserve(request)); });
}

void Batcher::Release(const v1::ReleaseRequest& request, std::function<void()> done) {
  loop_.Post([this, epoch = request.epoch(), id = request.request_id(), done = std::move(done)] {
    // Unknown is fine: it has been released, which is what the caller wants.
    Request* found = Find(epoch);
    if (found != nullptr && found->id == id) Close(*found, absl::CancelledError("released"), "cancelled");
    done();
  });
}

DecodeStream::Handlers Batcher::StreamHandlers() {
  return {.on_command =
              [this](const DecodeStream::Ptr& stream, v1::DecodeCommand command) {
                loop_.Post([this, stream, command = std::move(command)] { OnCommand(stream, command); });
              },
          .on_half_close =
              [this](const DecodeStream::Ptr& stream) {
                // A router with nothing more to say still listens, unless it never said anything.
                loop_.Post([stream] {
                  if (stream->claimed_epoch == 0) {
                    stream->Finish(absl::InvalidArgumentError("the stream was closed without a `start`"));
                  }
                });
              },
          .on_cancel =
              [this](const DecodeStream::Ptr& stream) {
                loop_.Post([this, stream] {
                  Request* request = Find(stream->claimed_epoch);
                  if (request != nullptr) Close(*request, absl::CancelledError("the stream ended"), "cancelled");
                });
              }};
}

void Batcher::StopReserving() {
  loop_.Post([this] { reserving_ = false; });
}

void Batcher::EndAll(const absl::Status& status) {
  loop_.Post([this, status] {
    reserving_ = false;
    for (auto& [epoch, request] : requests_) Close(*request, status, "cancelled");
  });
}

absl::StatusOr<v1::ReserveResponse> Batcher::DoReserve(const v1::ReserveRequest& request) {
  if (!reserving_) return absl::UnavailableError(absl::StrCat("worker ", host_->name, " is draining"));
  const v1::Plan& plan = request.plan();
  RETURN_IF_ERROR(worker::CheckRequestPlan(plan));
  if (plan.decode_worker().instance_id() != host_->instance) {
    return absl::InvalidArgumentError(
        absl::StrCat("plan.decode_worker.instance_id: ", IdToString(plan.decode_worker().instance_id()),
                     ", this worker is ", IdToString(host_->instance)));
  }
  if (request.total_tokens() <= plan.prompt_tokens()) {
    return absl::InvalidArgumentError(absl::StrCat("total_tokens: ", request.total_tokens(),
                                                   " leaves none to decode after a prompt of ", plan.prompt_tokens()));
  }
  ASSIGN_OR_RETURN(std::unique_ptr<worker::Reservation> reserved,
                   memory_->Reserve(request, stream::kDecodeWorker, request.total_tokens()));
  auto held = std::make_unique<Request>(std::move(reserved), worker::SparseLayers(*host_->model));
  load_.requests += 1;
  live_.Add(1);
  Log(LogLevel::kInfo, absl::StrCat("request ", IdToString(held->id), ": reserved, epoch ", IdToString(held->epoch),
                                    ", prompt ", plan.prompt_tokens(), " of ", held->total_tokens, " tokens"));
  v1::ReserveResponse response;
  response.set_epoch(held->epoch);
  response.set_instance_id(host_->instance);
  requests_[held->epoch] = std::move(held);
  return response;
}

void Batcher::OnCommand(const DecodeStream::Ptr& stream, const v1::DecodeCommand& command) {
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

void Batcher::Claim(const DecodeStream::Ptr& stream, const v1::DecodeStart& start) {
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
  if (absl::Status taken = TakeStart(*request, start); !taken.ok()) Close(*request, taken, "failed");
}

absl::Status Batcher::TakeStart(Request& request, const v1::DecodeStart& start) {
  const model::Config& config = host_->model->config();
  ASSIGN_OR_RETURN(engine::GenerationOptions options, ParseStart(start, {.vocab_size = config.vocab_size,
                                                                         .prompt_tokens = request.plan.prompt_tokens(),
                                                                         .total_tokens = request.total_tokens,
                                                                         .has_tokenizer = tokenizer_ != nullptr}));
  request.generation.emplace(std::move(options), tokenizer_.get(), config.eos_token_ids, request.plan.prompt_tokens(),
                             absl::MakeConstSpan(start.prompt_tokens().data(), start.prompt_tokens_size()));
  return absl::OkStatus();
}

void Batcher::OnSpanFinished(Request& request, int32_t span) {
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

Request* Batcher::Find(uint64_t epoch) {
  const auto found = requests_.find(epoch);
  return found == requests_.end() ? nullptr : found->second.get();
}

bool Batcher::Transition(Request& request, RequestEvent event, const std::string& why) {
  const std::optional<RequestState> next = NextState(request.state, event);
  if (!next.has_value()) return false;
  Log(LogLevel::kInfo,
      absl::StrCat("request ", IdToString(request.id), ": ", std::string(RequestStateName(request.state)), " -> ",
                   std::string(RequestStateName(*next)), ": ", why));
  request.state = *next;
  return true;
}

void Batcher::Close(Request& request, const absl::Status& status, const std::string& outcome) {
  if (!Transition(request, RequestEvent::kReleased, status.ok() ? "done" : status.ToString())) return;
  if (request.stream != nullptr) request.stream->Finish(status);
  metrics_.Finished(outcome).Increment();
  std::erase(waiting_, &request);
  std::erase(batch_, &request);
  load_.waiting = static_cast<int64_t>(waiting_.size());
  load_.decoding = static_cast<int64_t>(batch_.size());
  memory_->Retire(std::move(request.reservation), [this, &request] {
    Transition(request, RequestEvent::kDrained, "memory is back");
    requests_.erase(request.epoch);
    load_.requests -= 1;
    live_.Add(-1);
  });
}

}  // namespace salamander::decode
