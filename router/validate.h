// Every check of a client's request that needs neither workers nor a tokenizer. Pure functions, any thread.
//
// A refusal is INVALID_ARGUMENT and names the field, the value and the limit, in this form:
//   sampling.top_p must be in (0, 1], got 1.5
#ifndef SALAMANDER_ROUTER_VALIDATE_H_
#define SALAMANDER_ROUTER_VALIDATE_H_

#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "salamander/v1/cluster.pb.h"
#include "salamander/v1/inference.pb.h"

namespace salamander::router {

struct RequestLimits {
  int64_t vocab_size = 0;
  int64_t max_total_tokens = 0;
  int64_t default_max_tokens = 0;
  int max_logprobs = 0;
};

// Of a text, or of all contents of a chat: more than the longest prompt that a model takes.
inline constexpr int64_t kMaxPromptBytes = 64 << 20;
inline constexpr int kMaxStops = 64;
inline constexpr int kMaxStopTextBytes = 256;
inline constexpr int kMaxLogitBiases = 4096;
inline constexpr int kMaxPriority = 100;
inline constexpr float kMaxLogitBias = 100;
inline constexpr float kMaxTokenPenalty = 2;

// Exactly one kind of prompt, not empty, UTF-8, ids in the vocabulary, known chat roles.
absl::Status CheckPrompt(const v1::Prompt& prompt, int64_t vocab_size);

// What the decode worker is told, with every default filled in but the seed, request id, epoch and max_tokens.
absl::StatusOr<v1::DecodeStart> CheckOptions(const v1::GenerateRequest& request, const RequestLimits& limits);

// The number of tokens to generate at most: as asked, or the default, which is cut to what the limit leaves.
absl::StatusOr<int64_t> CheckMaxTokens(const v1::GenerateRequest& request, int64_t prompt_tokens,
                                       const RequestLimits& limits);

}  // namespace salamander::router

#endif  // SALAMANDER_ROUTER_VALIDATE_H_
