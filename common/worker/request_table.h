// The requests for which a role of a worker holds memory, from the reservation to the memory's return.
//
// All is done on the engine thread; what any thread may call hands over to it and returns at once. A reservation is
// claimed by a stream, within its lease. However a request ends, it ends on one path (Close): it takes no more steps,
// its stream is finished, its sends end, its receives are drained, its sequence is freed. What happens between claim
// and end is the role's, which the table calls through RequestHooks.
#ifndef SALAMANDER_COMMON_WORKER_REQUEST_TABLE_H_
#define SALAMANDER_COMMON_WORKER_REQUEST_TABLE_H_

#include <algorithm>
#include <cstdint>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "common/base/ids.h"
#include "common/base/log.h"
#include "common/base/status_macros.h"
#include "common/service/metrics.h"
#include "common/worker/engine_loop.h"
#include "common/worker/held_request.h"
#include "common/worker/host.h"
#include "common/worker/items.h"
#include "common/worker/live_count.h"
#include "common/worker/request_memory.h"
#include "common/worker/request_state.h"
#include "salamander/v1/cluster.pb.h"

namespace salamander::worker {

// The part of a table that is the same for every kind of request.
class RequestTableBase {
 public:
  // Requests together may take `budget_bytes`. `host` and `loop` outlive it.
  RequestTableBase(Host* host, v1::WorkerRole role, EngineLoop* loop, int64_t budget_bytes);
  virtual ~RequestTableBase() = default;
  RequestTableBase(const RequestTableBase&) = delete;
  RequestTableBase& operator=(const RequestTableBase&) = delete;

  // --- Any thread.
  v1::WorkerRole role() const { return role_; }
  int64_t request_bytes() const { return budget_bytes_; }
  int64_t free_request_bytes() const { return memory_.free_bytes(); }
  // How many requests hold memory.
  LiveCount& live() { return live_; }
  // From now on reservations are refused with UNAVAILABLE.
  void StopReserving();
  // The same, and every request ends with `status`.
  virtual void EndAll(const absl::Status& status) = 0;
  // For the table's owner, once no call of a service is under way any more: ends what is left, and waits for its
  // memory.
  void EndAndWait();

 protected:
  absl::Status CheckReserve(const v1::ReserveRequest& request) const;
  v1::ReserveResponse Granted(const Reservation& reservation) const;
  // Requests by how they ended.
  prometheus::Counter& Finished(const std::string& outcome);

  Host* const host_;
  const v1::WorkerRole role_;
  EngineLoop* const loop_;
  const int64_t budget_bytes_;
  RequestMemory memory_;
  LiveCount live_;
  bool reserving_ = true;
};

// What a role does at the turning points of its requests. Engine thread.
template <typename Request>
class RequestHooks {
 public:
  // Checks what CheckRequestPlan has not, and reserves the memory.
  virtual absl::StatusOr<std::unique_ptr<Request>> Admit(const v1::ReserveRequest& request) = 0;
  // The request has been claimed: checks what the stream says first, and takes it over. The request ends with a
  // failure.
  virtual absl::Status TakeStart(Request& request, const typename Request::Start& start) = 0;
  // The router sends no more; it still listens.
  virtual void OnHalfClose(Request& request) = 0;
  // The request has begun to close: it must not be stepped any more.
  virtual void OnClose(Request& request) = 0;

 protected:
  ~RequestHooks() = default;
};

// Request is derived from HeldRequest.
template <typename Request>
class RequestTable final : public RequestTableBase {
 public:
  using Stream = typename Request::Stream;
  using StreamPtr = typename Stream::Ptr;
  using Requests = std::map<uint64_t, std::unique_ptr<Request>>;  // by epoch

  RequestTable(Host* host, v1::WorkerRole role, EngineLoop* loop, int64_t budget_bytes, RequestHooks<Request>* hooks)
      : RequestTableBase(host, role, loop, budget_bytes), hooks_(hooks) {}

  // --- Any thread. `done` runs on the engine thread, within one turn.
  // `trace_id` goes into the log's lines about the request.
  void Reserve(const v1::ReserveRequest& request, const std::string& trace_id,
               std::function<void(absl::StatusOr<v1::ReserveResponse>)> done);
  void Release(const v1::ReleaseRequest& request, std::function<void()> done);
  typename Stream::Handlers StreamHandlers();
  void EndAll(const absl::Status& status) override;

  // --- Engine thread.
  const Requests& all() const { return requests_; }
  Request* Find(uint64_t epoch) const;
  RequestMemory& memory() { return memory_; }
  // False, and nothing happens, if `event` has no meaning in the request's state.
  bool Transition(Request& request, RequestEvent event, const std::string& why);
  // Finishes the stream with `status` and gives the memory back as soon as nothing uses it. A failure of the device, by
  // whomever it was met, takes the worker down from here.
  void Close(Request& request, const absl::Status& status, const std::string& outcome);
  // A closing request's last send may have ended.
  void RetireIfIdle(Request& request);
  // Ends the requests that have failed or were not claimed in time. Returns the seconds until the next lease ends.
  double EndOverdue();

 private:
  absl::StatusOr<v1::ReserveResponse> DoReserve(const v1::ReserveRequest& request, const std::string& trace_id);
  void OnCommand(const StreamPtr& stream, const typename Request::Command& command);
  void OnHalfClose(const StreamPtr& stream);
  void OnCancel(const StreamPtr& stream);
  void Claim(const StreamPtr& stream, const typename Request::Start& start);
  void OnSpanFinished(Request& request, int32_t span);

  RequestHooks<Request>* const hooks_;
  Requests requests_;
};

template <typename Request>
void RequestTable<Request>::Reserve(const v1::ReserveRequest& request, const std::string& trace_id,
                                    std::function<void(absl::StatusOr<v1::ReserveResponse>)> done) {
  loop_->Post([this, request, trace_id, done = std::move(done)] { done(DoReserve(request, trace_id)); });
}

template <typename Request>
void RequestTable<Request>::Release(const v1::ReleaseRequest& request, std::function<void()> done) {
  loop_->Post([this, epoch = request.epoch(), id = request.request_id(), done = std::move(done)] {
    // Unknown is fine: it has been released, which is what the caller wants.
    Request* found = Find(epoch);
    if (found != nullptr && found->id == id) Close(*found, absl::CancelledError("released"), "cancelled");
    done();
  });
}

template <typename Request>
typename RequestTable<Request>::Stream::Handlers RequestTable<Request>::StreamHandlers() {
  return {.on_command =
              [this](const StreamPtr& stream, typename Request::Command command) {
                loop_->Post([this, stream, command = std::move(command)] { OnCommand(stream, command); });
              },
          .on_half_close = [this](const StreamPtr& stream) { loop_->Post([this, stream] { OnHalfClose(stream); }); },
          .on_cancel = [this](const StreamPtr& stream) { loop_->Post([this, stream] { OnCancel(stream); }); }};
}

template <typename Request>
void RequestTable<Request>::EndAll(const absl::Status& status) {
  loop_->Post([this, status] {
    reserving_ = false;
    for (auto& [epoch, request] : requests_) Close(*request, status, "cancelled");
  });
}

template <typename Request>
Request* RequestTable<Request>::Find(uint64_t epoch) const {
  const auto found = requests_.find(epoch);
  return found == requests_.end() ? nullptr : found->second.get();
}

template <typename Request>
bool RequestTable<Request>::Transition(Request& request, RequestEvent event, const std::string& why) {
  const std::optional<RequestState> next = NextState(role_, request.state, event);
  if (!next.has_value()) return false;
  Log(LogLevel::kInfo,
      absl::StrCat(RequestLabel(request.id, request.trace_id), ": ", std::string(RequestStateName(request.state)),
                   " -> ", std::string(RequestStateName(*next)), ": ", why));
  request.state = *next;
  return true;
}

template <typename Request>
void RequestTable<Request>::Close(Request& request, const absl::Status& status, const std::string& outcome) {
  if (!Transition(request, RequestEvent::kReleased, status.ok() ? "done" : status.ToString())) return;
  const absl::Status told = host_->ReportFailure(status);
  if (request.stream != nullptr) request.stream->Finish(told);
  Finished(outcome).Increment();
  hooks_->OnClose(request);
  RetireIfIdle(request);
}

template <typename Request>
void RequestTable<Request>::RetireIfIdle(Request& request) {
  if (request.unsent_items > 0) return;
  memory_.Retire(std::move(request.reservation), [this, &request] {
    Transition(request, RequestEvent::kDrained, "memory is back");
    requests_.erase(request.epoch);
    live_.Add(-1);
  });
}

template <typename Request>
double RequestTable<Request>::EndOverdue() {
  const double now = host_->clock->Now();
  double soonest = EngineLoop::kWhenWoken;
  for (auto& [epoch, request] : requests_) {
    if (request->state == RequestState::kClosing) continue;
    // Items may fail before the claim; it is the claiming stream that must hear of it.
    const bool claimed = request->state != RequestState::kReserved;
    if (const absl::Status status = request->reservation->subscription->status(); claimed && !status.ok()) {
      Close(*request, status, "failed");
    } else if (request->reservation->lease_end <= now) {
      Close(*request, absl::DeadlineExceededError("no stream claimed the reservation within its lease"), "expired");
    } else {
      soonest = std::min(soonest, request->reservation->lease_end - now);
    }
  }
  return soonest;
}

template <typename Request>
absl::StatusOr<v1::ReserveResponse> RequestTable<Request>::DoReserve(const v1::ReserveRequest& request,
                                                                     const std::string& trace_id) {
  RETURN_IF_ERROR(CheckReserve(request));
  absl::StatusOr<std::unique_ptr<Request>> admitted = hooks_->Admit(request);
  if (!admitted.ok()) return host_->ReportFailure(admitted.status());
  live_.Add(1);
  Request& held = **admitted;
  held.trace_id = trace_id;
  Log(LogLevel::kInfo, absl::StrCat(RequestLabel(held.id, trace_id), ": reserved, epoch ", IdToString(held.epoch), ", ",
                                    held.plan.prompt_tokens(), " prompt tokens in ", held.plan.spans_size(), " spans"));
  v1::ReserveResponse granted = Granted(*held.reservation);
  requests_[granted.epoch()] = *std::move(admitted);
  return granted;
}

template <typename Request>
void RequestTable<Request>::OnCommand(const StreamPtr& stream, const typename Request::Command& command) {
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

template <typename Request>
void RequestTable<Request>::OnHalfClose(const StreamPtr& stream) {
  if (stream->claimed_epoch == 0) {
    stream->Finish(absl::InvalidArgumentError("the stream was closed without a `start`"));
    return;
  }
  if (Request* request = Find(stream->claimed_epoch); request != nullptr) hooks_->OnHalfClose(*request);
}

template <typename Request>
void RequestTable<Request>::OnCancel(const StreamPtr& stream) {
  Request* request = Find(stream->claimed_epoch);
  if (request != nullptr) Close(*request, absl::CancelledError("the stream ended"), "cancelled");
}

template <typename Request>
void RequestTable<Request>::Claim(const StreamPtr& stream, const typename Request::Start& start) {
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
  if (stream->ended()) return OnCancel(stream);
  if (absl::Status taken = hooks_->TakeStart(*request, start); !taken.ok()) Close(*request, taken, "failed");
}

template <typename Request>
void RequestTable<Request>::OnSpanFinished(Request& request, int32_t span) {
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

}  // namespace salamander::worker

#endif  // SALAMANDER_COMMON_WORKER_REQUEST_TABLE_H_
