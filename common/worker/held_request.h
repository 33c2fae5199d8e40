// What a request on a worker has whatever the worker's role; each role's Request derives from it.
#ifndef SALAMANDER_COMMON_WORKER_HELD_REQUEST_H_
#define SALAMANDER_COMMON_WORKER_HELD_REQUEST_H_

#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "common/base/ids.h"
#include "common/worker/event_stream.h"
#include "common/worker/request_memory.h"
#include "common/worker/request_state.h"
#include "salamander/v1/cluster.pb.h"

namespace salamander::worker {

// `Command` and `Event` are the messages of the stream that claims it; `Start` is the command it claims with.
template <typename CommandType, typename StartType, typename EventType>
struct HeldRequest {
  using Command = CommandType;
  using Start = StartType;
  using Event = EventType;
  using Stream = EventStream<CommandType, EventType>;

  explicit HeldRequest(std::unique_ptr<Reservation> reserved)
      : id(reserved->request), epoch(reserved->epoch), plan(reserved->plan), reservation(std::move(reserved)) {}

  const RequestId id;
  const uint64_t epoch;
  const v1::Plan plan;
  std::string trace_id;                      // of the client's W3C trace context; empty: none
  std::unique_ptr<Reservation> reservation;  // null once it is being retired
  RequestState state = RequestState::kReserved;
  typename Stream::Ptr stream;  // from the claim on
  int unsent_items = 0;         // sends that read its memory
};

}  // namespace salamander::worker

#endif  // SALAMANDER_COMMON_WORKER_HELD_REQUEST_H_
