// One request on a prefill worker, as the engine thread sees it.
#ifndef SALAMANDER_PREFILL_WORKER_REQUEST_H_
#define SALAMANDER_PREFILL_WORKER_REQUEST_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "absl/types/span.h"
#include "common/engine/forward.h"
#include "common/stream/publisher.h"
#include "common/worker/held_request.h"
#include "prefill_worker/schedule.h"
#include "salamander/v1/cluster.pb.h"

namespace salamander::prefill {

// A span of this worker. Its place in the layers is in the request's schedule.
struct OwnSpan {
  int32_t index = 0;  // in the plan
  absl::Span<const int32_t> tokens;
  // While it is active.
  engine::SpanActivations* slot = nullptr;
  std::optional<engine::SpanForward> forward;
  double started = 0;
  double seconds = 0;  // first step to last
  double compute_seconds = 0;
  // Until it is computed and all its items are sent.
  bool computed = false;
  int unsent_items = 0;
};

struct Request : worker::HeldRequest<v1::PrefillCommand, v1::PrefillStart, v1::PrefillEvent> {
  Request(std::unique_ptr<worker::Reservation> reserved, stream::LayerKinds sparse)
      : HeldRequest(std::move(reserved)), schedule(plan, std::move(sparse), reservation->worker) {}

  uint64_t order = 0;

  // From the claim on.
  bool half_closed = false;
  int32_t priority = 0;
  double deadline = 0;
  std::vector<int32_t> tokens;                    // of all own spans, in order
  std::vector<stream::Destination> destinations;  // per prefill worker of the plan, then the decode worker

  RequestSchedule schedule;
  std::vector<OwnSpan> spans;  // as in the schedule
  size_t spans_done = 0;       // computed and sent
  int64_t unfinished_tokens = 0;
  double last_progress = 0;

  int64_t sent_items = 0;
  int64_t sent_raw_bytes = 0;
  std::atomic<int64_t> sent_encoded_bytes{0};  // added to by the publisher's threads
};

}  // namespace salamander::prefill

#endif  // SALAMANDER_PREFILL_WORKER_REQUEST_H_
