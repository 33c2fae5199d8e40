// DecodeStart, checked, as options of the generation.
#ifndef SALAMANDER_DECODE_WORKER_START_H_
#define SALAMANDER_DECODE_WORKER_START_H_

#include <cstdint>

#include "absl/status/statusor.h"
#include "common/engine/generation.h"
#include "salamander/v1/cluster.pb.h"

namespace salamander::decode {

// What a start is checked against.
struct StartLimits {
  int64_t vocab_size = 0;
  int64_t prompt_tokens = 0;
  int64_t total_tokens = 0;  // reserved
  bool has_tokenizer = false;
};

// INVALID_ARGUMENT naming the field, its value and the limit.
absl::StatusOr<engine::GenerationOptions> ParseStart(const v1::DecodeStart& start, const StartLimits& limits);

}  // namespace salamander::decode

#endif  // SALAMANDER_DECODE_WORKER_START_H_
