// One worker's part in one request: its reservation, then its stream, and the end of both.
//
//   kIdle ─Reserve▶ kReserving ─granted▶ kReserved ─Open▶ kOpen
//     └───────────────┴────────────────────┴─────────────────┴──End▶ kEnded
//
// Close is the friendly end: the worker has nothing more to do and ends the stream by itself. End may follow.
// End leaves nothing behind on the worker: an open stream is cancelled, a reservation that no stream has surely claimed
// is released, and one that is granted only after End is released then. Should an answer get lost, the worker's lease
// does it.
#ifndef SALAMANDER_ROUTER_LEG_H_
#define SALAMANDER_ROUTER_LEG_H_

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "common/base/ids.h"
#include "common/base/log.h"
#include "common/base/thread_pool.h"
#include "common/service/trace_context.h"
#include "router/placement.h"
#include "router/worker_stream.h"
#include "salamander/v1/cluster.grpc.pb.h"

namespace salamander::router {

// The two kinds of legs differ in their stub and messages only.
struct PrefillCalls {
  using Command = v1::PrefillCommand;
  using Event = v1::PrefillEvent;
  static auto* Stub(const WorkerClient& client) { return client.prefill->async(); }
  static void Open(const WorkerClient& client, grpc::ClientContext* context,
                   grpc::ClientBidiReactor<Command, Event>* reactor) {
    Stub(client)->Prefill(context, reactor);
  }
};
struct DecodeCalls {
  using Command = v1::DecodeCommand;
  using Event = v1::DecodeEvent;
  static auto* Stub(const WorkerClient& client) { return client.decode->async(); }
  static void Open(const WorkerClient& client, grpc::ClientContext* context,
                   grpc::ClientBidiReactor<Command, Event>* reactor) {
    Stub(client)->Decode(context, reactor);
  }
};

// What all legs of a request share.
struct LegScope {
  RequestId request = 0;
  service::TraceContext trace;
  SerialExecutor executor;  // the request's
  std::chrono::system_clock::time_point deadline;
  double lease_seconds = 0;
  std::shared_ptr<void> alive;  // held as long as calls are in flight
  std::shared_ptr<void> owner;  // the request, which callbacks refer to; held until End or the stream's end
};

// Made and used on the request's executor, where its callbacks run too. After End none is called any more.
template <typename Calls>
class Leg : public std::enable_shared_from_this<Leg<Calls>> {
 public:
  using Command = typename Calls::Command;
  using Event = typename Calls::Event;

  Leg(LegScope scope, PlacedWorker worker) : scope_(std::move(scope)), worker_(std::move(worker)) {}

  const std::string& title() const { return worker_.title; }
  InstanceId instance() const { return worker_.instance; }
  uint64_t epoch() const { return epoch_; }
  // Of the reservation: what items for it must carry.
  const std::string& secret() const { return secret_; }
  Registry::LoadHold& load() { return worker_.load; }

  // Gives up after half a lease, so that reservations made one after the other live until all are claimed.
  void Reserve(const v1::ReserveRequest& request, std::function<void(absl::Status)> on_reserved);
  // Claims the reservation.
  void Open(Command start, std::function<void(Event)> on_event, std::function<void(absl::Status)> on_end);
  // Only while open.
  void Send(Command command) { stream_->Send(std::move(command)); }
  // The worker's part is over: half-closes, and hears no more of it. End is still due.
  void Close();
  void End();

 private:
  enum class State { kIdle, kReserving, kReserved, kOpen, kEnded };
  struct ReserveCall {
    grpc::ClientContext context;
    v1::ReserveRequest request;
    v1::ReserveResponse response;
  };

  // Runs `closure` on the executor. Leg and owner live on until it returns, even if it ends this leg. From gRPC's
  // callbacks, which hold no lock.
  template <typename Closure>
  void Run(Closure closure) {
    scope_.executor.Run([self = this->shared_from_this(), closure = std::move(closure)]() mutable {
      const std::shared_ptr<void> owner = self->scope_.owner;
      closure();
    });
  }
  void Forget();
  std::chrono::system_clock::time_point Within(double seconds) const {
    return std::min(scope_.deadline,
                    std::chrono::system_clock::now() + std::chrono::microseconds(static_cast<int64_t>(seconds * 1e6)));
  }
  void OnReserved(const absl::Status& status, const v1::ReserveResponse& response);
  void OnEvent(Event event);
  void OnEnd(const absl::Status& status);
  void Release();

  LegScope scope_;
  PlacedWorker worker_;
  State state_ = State::kIdle;
  uint64_t epoch_ = 0;
  std::string secret_;
  bool heard_ = false;  // an event came, so the stream has claimed the reservation
  std::function<void(absl::Status)> on_reserved_, on_end_;
  std::function<void(Event)> on_event_;
  std::shared_ptr<WorkerStream<Command, Event>> stream_;
};

using PrefillLeg = Leg<PrefillCalls>;
using DecodeLeg = Leg<DecodeCalls>;

template <typename Calls>
void Leg<Calls>::Reserve(const v1::ReserveRequest& request, std::function<void(absl::Status)> on_reserved) {
  state_ = State::kReserving;
  on_reserved_ = std::move(on_reserved);
  auto call = std::make_shared<ReserveCall>();
  call->request = request;
  scope_.trace.AddTo(&call->context);
  call->context.set_deadline(Within(scope_.lease_seconds / 2));
  Calls::Stub(*worker_.client)
      ->Reserve(&call->context, &call->request, &call->response,
                [self = this->shared_from_this(), call](const grpc::Status& status) {
                  self->Run([self = self.get(), call, status = service::FromGrpc(status)] {
                    self->OnReserved(status, call->response);
                  });
                });
}

template <typename Calls>
void Leg<Calls>::OnReserved(const absl::Status& status, const v1::ReserveResponse& response) {
  epoch_ = response.epoch();
  secret_ = response.secret();
  if (state_ == State::kEnded) {
    if (status.ok()) Release();
    return;
  }
  absl::Status outcome = status;
  state_ = State::kReserved;
  if (status.ok() && response.instance_id() != worker_.instance) {
    outcome = absl::UnavailableError(absl::StrCat("instance ", IdToString(response.instance_id()), " answered for ",
                                                  IdToString(worker_.instance), ": it was restarted"));
  } else if (!status.ok()) {
    state_ = State::kIdle;
    // Its own time limit, not the request's.
    if (absl::IsDeadlineExceeded(status) && std::chrono::system_clock::now() < scope_.deadline) {
      outcome = absl::UnavailableError(absl::StrCat("no answer to a reservation in ", scope_.lease_seconds / 2, " s"));
    }
  }
  std::exchange(on_reserved_, nullptr)(outcome);
}

template <typename Calls>
void Leg<Calls>::Open(Command start, std::function<void(Event)> on_event, std::function<void(absl::Status)> on_end) {
  state_ = State::kOpen;
  on_event_ = std::move(on_event);
  on_end_ = std::move(on_end);
  const auto self = this->shared_from_this();
  stream_ = WorkerStream<Command, Event>::Start(
      scope_.deadline,
      [this](grpc::ClientContext* context, grpc::ClientBidiReactor<Command, Event>* reactor) {
        scope_.trace.AddTo(context);
        Calls::Open(*worker_.client, context, reactor);
      },
      {.on_event =
           [self](Event event) {
             self->Run([self = self.get(), event = std::move(event)]() mutable { self->OnEvent(std::move(event)); });
           },
       .on_end =
           [self](absl::Status status) {
             self->Run([self = self.get(), status = std::move(status)] { self->OnEnd(status); });
           }});
  stream_->Send(std::move(start));
}

template <typename Calls>
void Leg<Calls>::OnEvent(Event event) {
  heard_ = true;
  // A copy, since the callback may end this leg and with it itself.
  if (const auto on_event = on_event_) on_event(std::move(event));
}

template <typename Calls>
void Leg<Calls>::OnEnd(const absl::Status& status) {
  if (!heard_) Release();
  if (const auto on_end = on_end_) on_end(status);
  Forget();
}

template <typename Calls>
void Leg<Calls>::Close() {
  on_event_ = nullptr;
  on_end_ = nullptr;
  worker_.load = {};
  stream_->CloseWrites();
}

template <typename Calls>
void Leg<Calls>::End() {
  const State before = std::exchange(state_, State::kEnded);
  if (before == State::kReserved) Release();
  if (before == State::kOpen) stream_->Cancel();
  Forget();
}

template <typename Calls>
void Leg<Calls>::Forget() {
  on_reserved_ = nullptr;
  on_event_ = nullptr;
  on_end_ = nullptr;
  worker_.load = {};
  scope_.owner = nullptr;
}

template <typename Calls>
void Leg<Calls>::Release() {
  struct ReleaseCall {
    grpc::ClientContext context;
    v1::ReleaseRequest request;
    v1::ReleaseResponse response;
  };
  auto call = std::make_shared<ReleaseCall>();
  scope_.trace.AddTo(&call->context);
  call->request.set_request_id(scope_.request);
  call->request.set_epoch(epoch_);
  // Not the request's deadline, which may be what ended it.
  call->context.set_deadline(std::chrono::system_clock::now() +
                             std::chrono::microseconds(static_cast<int64_t>(scope_.lease_seconds * 1e6)));
  Calls::Stub(*worker_.client)
      ->Release(&call->context, &call->request, &call->response,
                [call, alive = scope_.alive, label = RequestLabel(scope_.request, scope_.trace.trace_id()),
                 title = worker_.title](const grpc::Status& status) {
                  // NOT_FOUND: the lease or the stream's end was first.
                  if (status.ok() || status.error_code() == grpc::StatusCode::NOT_FOUND) return;
                  Log(LogLevel::kWarning,
                      absl::StrCat(label, ": release on ", title, " left to its lease: ", status.error_message()));
                });
}

}  // namespace salamander::router

#endif  // SALAMANDER_ROUTER_LEG_H_
