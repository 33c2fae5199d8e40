// The life of a request on a worker: how it begins and ends is the same for both roles, what lies between is not.
#ifndef SALAMANDER_COMMON_WORKER_REQUEST_STATE_H_
#define SALAMANDER_COMMON_WORKER_REQUEST_STATE_H_

#include <optional>
#include <string_view>

#include "salamander/v1/cluster.pb.h"

namespace salamander::worker {

//   prefill   kReserved ─claimed─▶ kRunning ─all sent─▶ kDone
//   decode    kReserved ─claimed─▶ kReceiving ─ready─▶ kWaiting ─joined─▶ kDecoding
//   both      any of these ─released─▶ kClosing ─drained─▶ kClosed
enum class RequestState {
  kReserved,   // memory is set aside and items may arrive; no stream has claimed it
  kRunning,    // prefill: spans wait, are computed, are sent
  kDone,       // prefill: every own span computed and every item sent; the router still has the stream open
  kReceiving,  // decode: claimed; its manifest is not complete
  kWaiting,    // decode: every item verified; the batch has no place
  kDecoding,   // decode: in the batch
  kClosing,    // takes no more steps; its sends and receives come to their end
  kClosed,     // memory is back
};

enum class RequestEvent {
  kClaimed,   // a stream's start
  kAllSent,   // prefill: the last item of the last own span
  kReady,     // decode: the manifest is complete and the tiers are made
  kJoined,    // decode: the batch had a place
  kReleased,  // finished, end of the stream, a failure, a lease run out, a Release call, drain
  kDrained,   // nothing is under way in its memory
};

std::string_view RequestStateName(RequestState state);

// The state of a request of that role after `event`, or nothing if `event` has no meaning in `state`.
std::optional<RequestState> NextState(v1::WorkerRole role, RequestState state, RequestEvent event);

}  // namespace salamander::worker

#endif  // SALAMANDER_COMMON_WORKER_REQUEST_STATE_H_
