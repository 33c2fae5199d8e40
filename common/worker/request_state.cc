#include "common/worker/request_state.h"

namespace salamander::worker {

std::string_view RequestStateName(RequestState state) {
  switch (state) {
    case RequestState::kReserved:
      return "reserved";
    case RequestState::kRunning:
      return "running";
    case RequestState::kDone:
      return "done";
    case RequestState::kReceiving:
      return "receiving";
    case RequestState::kWaiting:
      return "waiting";
    case RequestState::kDecoding:
      return "decoding";
    case RequestState::kClosing:
      return "closing";
    case RequestState::kClosed:
      break;
  }
  return "closed";
}

std::optional<RequestState> NextState(v1::WorkerRole role, RequestState state, RequestEvent event) {
  const auto step = [state](RequestState from, RequestState to) {
    return state == from ? std::optional(to) : std::nullopt;
  };
  switch (event) {
    case RequestEvent::kClaimed:
      return step(RequestState::kReserved,
                  role == v1::WORKER_ROLE_PREFILL ? RequestState::kRunning : RequestState::kReceiving);
    case RequestEvent::kAllSent:
      return step(RequestState::kRunning, RequestState::kDone);
    case RequestEvent::kReady:
      return step(RequestState::kReceiving, RequestState::kWaiting);
    case RequestEvent::kJoined:
      return step(RequestState::kWaiting, RequestState::kDecoding);
    case RequestEvent::kReleased:
      if (state == RequestState::kClosing || state == RequestState::kClosed) return std::nullopt;
      return RequestState::kClosing;
    case RequestEvent::kDrained:
      return step(RequestState::kClosing, RequestState::kClosed);
  }
  return std::nullopt;
}

}  // namespace salamander::worker
