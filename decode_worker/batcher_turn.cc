// The part of the batcher that works: tiers as keys arrive, then tokens.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/log.h"
#include "common/base/status_macros.h"
#include "decode_worker/batcher.h"
#include "decode_worker/capture.h"

namespace salamander::decode {
namespace {

using worker::RequestEvent;
using worker::RequestState;

// A router that reads slowly gets several tokens in one message.
bool MergeChunks(v1::DecodeEvent& last, const v1::DecodeEvent& event) {
  if (!last.has_tokens() || !event.has_tokens()) return false;
  v1::TokenChunk& chunk = *last.mutable_tokens();
  const v1::TokenChunk& more = event.tokens();
  chunk.mutable_ids()->MergeFrom(more.ids());
  chunk.mutable_text()->append(more.text());
  chunk.mutable_logprobs()->MergeFrom(more.logprobs());
  return true;
}

v1::DecodeEvent ChunkOf(const engine::GeneratedToken& token) {
  v1::DecodeEvent event;
  v1::TokenChunk& chunk = *event.mutable_tokens();
  chunk.add_ids(token.token);
  chunk.set_text(token.text);
  if (token.logprobs.has_value()) {
    v1::TokenLogprob& logprob = *chunk.add_logprobs();
    logprob.set_token(token.token);
    logprob.set_logprob(token.logprobs->chosen);
    for (const auto& [id, value] : token.logprobs->top) {
      v1::TopLogprob& top = *logprob.add_top();
      top.set_token(id);
      top.set_logprob(value);
    }
  }
  return event;
}

}  // namespace

double Batcher::Turn() {
  const double until_lease = requests_->EndOverdue();
  const bool extended = ExtendTiers();
  CheckReady();
  Join();
  if (!batch_.empty()) Step();
  return extended || !batch_.empty() || !waiting_.empty() ? worker::EngineLoop::kAgain : until_lease;
}

bool Batcher::ExtendTiers() {
  for (auto& [epoch, request] : requests_->all()) {
    if (request->state != RequestState::kReserved && request->state != RequestState::kReceiving) continue;
    const worker::Reservation& held = *request->reservation;
    const std::optional<TierProgress::Piece> piece =
        request->tiers.Next([&](const stream::ItemId& id) { return held.subscription->Has(id); });
    if (!piece.has_value()) continue;
    const absl::Status made = held.sequence->ExtendTiers(piece->layer, piece->tokens);
    if (made.ok()) {
      request->tiers.Advance();
    } else {
      requests_->Close(*request, Annotate(made, absl::StrCat("tiers of layer ", piece->layer)), "failed");
    }
    return true;
  }
  return false;
}

void Batcher::CheckReady() {
  for (auto& [epoch, request] : requests_->all()) {
    if (request->state != RequestState::kReceiving) continue;
    const stream::Subscription& subscription = *request->reservation->subscription;
    if (!subscription.complete()) continue;
    const bool tiers_wait = request->tiers.Next([](const stream::ItemId&) { return true; }).has_value();
    if (!tiers_wait) Ready(*request);
  }
}

void Batcher::Ready(Request& request) {
  if (!options_.capture_dir.empty()) {
    const absl::Status captured = CaptureRequest(options_.capture_dir, request.id, *request.reservation->sequence,
                                                 request.plan.prompt_tokens(), request.reservation->hidden);
    if (!captured.ok()) return requests_->Close(request, Annotate(captured, "capture"), "failed");
  }
  requests_->Transition(request, RequestEvent::kReady,
                        absl::StrCat(request.reservation->subscription->received_items(), " items received"));
  request.ready = host_->clock->Now();
  v1::DecodeEvent event;
  event.mutable_ready();
  request.stream->Send(std::move(event));
  waiting_.push_back(&request);
  load_.waiting = static_cast<int64_t>(waiting_.size());
}

void Batcher::Join() {
  const double now = host_->clock->Now();
  std::vector<Request*> joining;
  while (!waiting_.empty() && static_cast<int64_t>(batch_.size()) < options_.max_batch) {
    Request& request = *waiting_.front();
    waiting_.pop_front();
    requests_->Transition(request, RequestEvent::kJoined, absl::StrCat("batch of ", batch_.size() + 1));
    request.joined = now;
    metrics_.queue_seconds.Observe(now - request.ready);
    batch_.push_back(&request);
    joining.push_back(&request);
  }
  load_.waiting = static_cast<int64_t>(waiting_.size());
  load_.decoding = static_cast<int64_t>(batch_.size());
  if (joining.empty()) return;

  std::vector<const float*> rows;
  for (const Request* request : joining) rows.push_back(request->reservation->hidden.data());
  EmitAll(joining, DrawAll(joining, forward_->FirstStep(rows)), "first token");
}

void Batcher::Step() {
  const std::vector<Request*> stepped = batch_;  // Emit takes those that finish out of batch_.
  std::vector<engine::DecodeRow> rows;
  for (const Request* request : stepped) {
    rows.push_back({.sequence = request->reservation->sequence.get(),
                    .token = request->next_token,
                    .position = request->next_position});
  }
  const double begun = host_->clock->Now();
  const auto draws = DrawAll(stepped, forward_->Step(rows));
  const double seconds = host_->clock->Now() - begun;
  metrics_.step_seconds.Observe(seconds);
  metrics_.batch_size.Observe(static_cast<double>(rows.size()));
  load_.tokens_per_second.Add(static_cast<int64_t>(rows.size()), seconds);
  EmitAll(stepped, draws, "decode step");
}

absl::StatusOr<absl::Span<const engine::Draw>> Batcher::DrawAll(absl::Span<Request* const> requests,
                                                                const absl::Status& step) {
  RETURN_IF_ERROR(step);
  engine::DrawRequests asked;
  for (const Request* request : requests) request->generation->Ask(asked);
  return forward_->Sample(asked);
}

void Batcher::EmitAll(absl::Span<Request* const> requests, const absl::StatusOr<absl::Span<const engine::Draw>>& draws,
                      std::string_view what) {
  for (size_t i = 0; i < requests.size(); ++i) {
    if (draws.ok()) {
      Emit(*requests[i], (*draws)[i]);
    } else {
      requests_->Close(*requests[i], Annotate(draws.status(), what), "failed");
    }
  }
}

void Batcher::Emit(Request& request, const engine::Draw& draw) {
  const engine::GeneratedToken token = request.generation->Take(draw);
  request.next_token = token.token;
  request.next_position = request.plan.prompt_tokens() + request.generation->count() - 1;
  const double now = host_->clock->Now();
  v1::DecodeEvent event = ChunkOf(token);
  if (request.generation->count() == 1) {
    event.mutable_first_token()->set_decode_queue_seconds(request.joined - request.ready);
    event.mutable_first_token()->set_first_step_seconds(now - request.joined);
    metrics_.first_step_seconds.Observe(now - request.joined);
  } else {
    metrics_.inter_token_seconds.Observe(now - request.last_token_sent);
  }
  request.stream->Send(std::move(event), MergeChunks);
  metrics_.tokens.Increment();
  request.last_token_sent = now;
  if (token.reason == engine::StopReason::kNone) return;
  SendFinished(request, token.reason);
  requests_->Close(request, absl::OkStatus(), "ok");
}

void Batcher::SendFinished(Request& request, engine::StopReason reason) {
  v1::DecodeEvent event;
  v1::DecodeFinished& finished = *event.mutable_finished();
  finished.set_reason(reason == engine::StopReason::kStop ? v1::FINISH_REASON_STOP : v1::FINISH_REASON_LENGTH);
  finished.set_completion_tokens(request.generation->count());
  request.stream->Send(std::move(event));
}

}  // namespace salamander::decode
