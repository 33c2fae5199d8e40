// The life of a request on a prefill worker.
#ifndef SALAMANDER_PREFILL_WORKER_REQUEST_STATE_H_
#define SALAMANDER_PREFILL_WORKER_REQUEST_STATE_H_

#include <optional>
#include <string_view>

namespace salamander::prefill {

//   kReserved ─claimed─▶ kRunning ─all sent─▶ kDone
//       │                   │                   │
//       └─────── released ──┴───────────────────┴──▶ kClosing ─drained─▶ kClosed
enum class RequestState {
  kReserved,  // memory is set aside and items may arrive; no stream has claimed it
  kRunning,   // spans wait, are computed, are sent
  kDone,      // every own span computed and every item sent; the router still has the stream open
  kClosing,   // takes no more steps; its sends and receives come to their end
  kClosed,    // memory is back
};

enum class RequestEvent {
  kClaimed,   // a stream's PrefillStart
  kAllSent,   // the last item of the last own span
  kReleased,  // end of the stream, a failure, a lease run out, a Release call, drain
  kDrained,   // nothing is under way in its memory
};

std::string_view RequestStateName(RequestState state);

// The state after `event`, or nothing if `event` has no meaning in `state`.
std::optional<RequestState> NextState(RequestState state, RequestEvent event);

}  // namespace salamander::prefill

#endif  // SALAMANDER_PREFILL_WORKER_REQUEST_STATE_H_
