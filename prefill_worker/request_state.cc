#include "prefill_worker/request_state.h"

namespace salamander::prefill {

std::string_view RequestStateName(RequestState state) {
  switch (state) {
    case RequestState::kReserved:
      return "reserved";
    case RequestState::kRunning:
      return "running";
    case RequestState::kDone:
      return "done";
    case RequestState::kClosing:
      return "closing";
    case RequestState::kClosed:
      break;
  }
  return "closed";
}

std::optional<RequestState> NextState(RequestState state, RequestEvent event) {
  const bool open = state == RequestState::kReserved || state == RequestState::kRunning || state == RequestState::kDone;
  switch (event) {
    case RequestEvent::kClaimed:
      if (state == RequestState::kReserved) return RequestState::kRunning;
      break;
    case RequestEvent::kAllSent:
      if (state == RequestState::kRunning) return RequestState::kDone;
      break;
    case RequestEvent::kReleased:
      if (open) return RequestState::kClosing;
      break;
    case RequestEvent::kDrained:
      if (state == RequestState::kClosing) return RequestState::kClosed;
      break;
  }
  return std::nullopt;
}

}  // namespace salamander::prefill
