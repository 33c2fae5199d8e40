// The states of a request on the router and the one function that moves between them.
//
//   kChecking ─kAccepted▶ kQueued ─kAdmitted▶ kReserving ─kReserved▶ kPrefilling ─kPrefilled▶ kTransferring
//                            ▲                    │                      │                         │
//                            └─────kNoMemory──────┘                    kReady                    kReady
//                                                                        ▼                         ▼
//   any state but the two final ones ─kFail▶ kFailed                  kDecoding ◀──────────────────┘
//                                                                        └─kCompleted▶ kFinished
//
// Planning anew after a lost worker belongs here as one more event, from kPrefilling, kTransferring and kDecoding back
// to kReserving with a new plan and new epochs; today such a loss is kFail.
#ifndef SALAMANDER_ROUTER_REQUEST_STATE_H_
#define SALAMANDER_ROUTER_REQUEST_STATE_H_

#include <optional>
#include <string>

namespace salamander::router {

enum class RequestState {
  kChecking,      // validating and tokenizing
  kQueued,        // waiting for workers with room
  kReserving,     // asking them for memory
  kPrefilling,    // spans are being computed
  kTransferring,  // all spans done, items still on their way
  kDecoding,      // the decode worker has everything
  kFinished,
  kFailed,
};
inline constexpr int kRequestStates = 8;

enum class RequestEvent {
  kAccepted,   // valid, in the queue
  kAdmitted,   // workers chosen
  kNoMemory,   // one of them had less memory than thought: back to the queue
  kReserved,   // all of them hold memory; prefill starts
  kPrefilled,  // the last span is done
  kReady,      // every item verified at the decode worker (may be heard of before the last span's end)
  kCompleted,  // the decode worker is done
  kFail,       // any end but that
};
inline constexpr int kRequestEvents = 8;

// Nothing if the event makes no sense in the state.
std::optional<RequestState> NextState(RequestState state, RequestEvent event);

inline bool IsFinal(RequestState state) { return state == RequestState::kFinished || state == RequestState::kFailed; }

// "queued", as in logs.
std::string StateName(RequestState state);

}  // namespace salamander::router

#endif  // SALAMANDER_ROUTER_REQUEST_STATE_H_
