// The life of a request on a decode worker.
#ifndef SALAMANDER_DECODE_WORKER_REQUEST_STATE_H_
#define SALAMANDER_DECODE_WORKER_REQUEST_STATE_H_

#include <optional>
#include <string_view>

namespace salamander::decode {

//   kReserved ─claimed─▶ kReceiving ─ready─▶ kWaiting ─joined─▶ kDecoding
//       │                    │                  │                  │
//       └───── released ─────┴──────────────────┴──────────────────┴──▶ kClosing ─drained─▶ kClosed
enum class RequestState {
  kReserved,   // memory is set aside and items may arrive; no stream has claimed it
  kReceiving,  // claimed; its manifest is not complete
  kWaiting,    // every item verified; the batch has no place
  kDecoding,   // in the batch
  kClosing,    // takes no more steps; its receives come to their end
  kClosed,     // memory is back
};

enum class RequestEvent {
  kClaimed,   // a stream's DecodeStart
  kReady,     // the manifest is complete and the tiers are made
  kJoined,    // the batch had a place
  kReleased,  // finished, end of the stream, a failure, a lease run out, a Release call, drain
  kDrained,   // nothing is under way in its memory
};

std::string_view RequestStateName(RequestState state);

// The state after `event`, or nothing if `event` has no meaning in `state`.
std::optional<RequestState> NextState(RequestState state, RequestEvent event);

}  // namespace salamander::decode

#endif  // SALAMANDER_DECODE_WORKER_REQUEST_STATE_H_
