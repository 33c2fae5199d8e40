// What a request received, as a file: for tests that compare it with an oracle, and for debugging.
#ifndef SALAMANDER_DECODE_WORKER_CAPTURE_H_
#define SALAMANDER_DECODE_WORKER_CAPTURE_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "common/base/ids.h"
#include "common/engine/sequence.h"

namespace salamander::decode {

// Writes FOLDER/REQUEST.safetensors (16 hexadecimal digits), all float32: per sparse layer key.L and value.L
// [tokens, kv heads, head_dim]; per lightning layer state.L [heads, head_dim, head_dim]; hidden [hidden_size]. Engine
// thread.
absl::Status CaptureRequest(const std::string& folder, RequestId request, engine::Sequence& sequence, int64_t tokens,
                            absl::Span<const float> hidden);

}  // namespace salamander::decode

#endif  // SALAMANDER_DECODE_WORKER_CAPTURE_H_
