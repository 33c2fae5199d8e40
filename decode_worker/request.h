// One request on a decode worker, as the engine thread sees it.
#ifndef SALAMANDER_DECODE_WORKER_REQUEST_H_
#define SALAMANDER_DECODE_WORKER_REQUEST_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <utility>

#include "common/engine/generation.h"
#include "common/worker/held_request.h"
#include "decode_worker/tier_progress.h"
#include "salamander/v1/cluster.pb.h"

namespace salamander::decode {

struct Request : worker::HeldRequest<v1::DecodeCommand, v1::DecodeStart, v1::DecodeEvent> {
  Request(std::unique_ptr<worker::Reservation> reserved, const stream::LayerKinds& sparse)
      : HeldRequest(std::move(reserved)), total_tokens(reservation->sequence->max_tokens()), tiers(&plan, sparse) {}

  const int64_t total_tokens;
  TierProgress tiers;

  // From the claim on.
  std::optional<engine::Generation> generation;

  // Moments on the worker's clock.
  double ready = 0;
  double joined = 0;
  double last_token_sent = 0;

  // While decoding: the token to run next and its position.
  int32_t next_token = 0;
  int64_t next_position = 0;
};

}  // namespace salamander::decode

#endif  // SALAMANDER_DECODE_WORKER_REQUEST_H_
