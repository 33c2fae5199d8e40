#include "router/request_state.h"

namespace salamander::router {

std::optional<RequestState> NextState(RequestState state, RequestEvent event) {
  using State = RequestState;
  using Event = RequestEvent;
  if (IsFinal(state)) return std::nullopt;
  if (event == Event::kFail) return State::kFailed;
  switch (state) {
    case State::kChecking:
      if (event == Event::kAccepted) return State::kQueued;
      break;
    case State::kQueued:
      if (event == Event::kAdmitted) return State::kReserving;
      break;
    case State::kReserving:
      if (event == Event::kReserved) return State::kPrefilling;
      if (event == Event::kNoMemory) return State::kQueued;
      break;
    case State::kPrefilling:
      if (event == Event::kPrefilled) return State::kTransferring;
      if (event == Event::kReady) return State::kDecoding;
      break;
    case State::kTransferring:
      if (event == Event::kReady) return State::kDecoding;
      break;
    case State::kDecoding:
      if (event == Event::kCompleted) return State::kFinished;
      break;
    case State::kFinished:
    case State::kFailed:
      break;
  }
  return std::nullopt;
}

std::string StateName(RequestState state) {
  switch (state) {
    case RequestState::kChecking:
      return "checking";
    case RequestState::kQueued:
      return "queued";
    case RequestState::kReserving:
      return "reserving";
    case RequestState::kPrefilling:
      return "prefilling";
    case RequestState::kTransferring:
      return "transferring";
    case RequestState::kDecoding:
      return "decoding";
    case RequestState::kFinished:
      return "finished";
    case RequestState::kFailed:
      break;
  }
  return "failed";
}

}  // namespace salamander::router
