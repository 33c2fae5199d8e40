// One request on a decode worker, as the engine thread sees it.
#ifndef SALAMANDER_DECODE_WORKER_REQUEST_H_
#define SALAMANDER_DECODE_WORKER_REQUEST_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <utility>

#include "common/engine/generation.h"
#include "common/worker/event_stream.h"
#include "common/worker/request_memory.h"
#include "decode_worker/request_state.h"
#include "decode_worker/tier_progress.h"
#include "salamander/v1/cluster.pb.h"

namespace salamander::decode {

using DecodeStream = worker::EventStream<v1::DecodeCommand, v1::DecodeEvent>;

struct Request {
  Request(std::unique_ptr<worker::Reservation> reserved, const stream::LayerKinds& sparse)
      : id(reserved->request),
        epoch(reserved->epoch),
        plan(reserved->plan),
        total_tokens(reserved->sequence->max_tokens()),
        reservation(std::move(reserved)),
        tiers(&plan, sparse) {}

  const RequestId id;
  const uint64_t epoch;
  const v1::Plan plan;
  const int64_t total_tokens;
  std::unique_ptr<worker::Reservation> reservation;  // null once it is being retired
  RequestState state = RequestState::kReserved;
  TierProgress tiers;

  // From the claim on.
  DecodeStream::Ptr stream;
  std::optional<engine::Generation> generation;

  // Moments on the worker's clock.
  double ready = 0;
  double joined = 0;
  double last_token_sent = 0;
  double first_step_seconds = 0;

  // While decoding: the token to run next and its position.
  int32_t next_token = 0;
  int64_t next_position = 0;
};

}  // namespace salamander::decode

#endif  // SALAMANDER_DECODE_WORKER_REQUEST_H_
