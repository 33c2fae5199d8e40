#include "decode_worker/request_state.h"

namespace salamander::decode {

std::string_view RequestStateName(RequestState state) {
  switch (state) {
    case RequestState::kReserved:
      return "reserved";
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

std::optional<RequestState> NextState(RequestState state, RequestEvent event) {
  switch (event) {
    case RequestEvent::kClaimed:
      if (state == RequestState::kReserved) return RequestState::kReceiving;
      break;
    case RequestEvent::kReady:
      if (state == RequestState::kReceiving) return RequestState::kWaiting;
      break;
    case RequestEvent::kJoined:
      if (state == RequestState::kWaiting) return RequestState::kDecoding;
      break;
    case RequestEvent::kReleased:
      if (state < RequestState::kClosing) return RequestState::kClosing;
      break;
    case RequestEvent::kDrained:
      if (state == RequestState::kClosing) return RequestState::kClosed;
      break;
  }
  return std::nullopt;
}

}  // namespace salamander::decode
