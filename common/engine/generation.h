// The output side of one request, shared by the decode worker and `salamander run`: sampling, text, and when to stop.
#ifndef SALAMANDER_COMMON_ENGINE_GENERATION_H_
#define SALAMANDER_COMMON_ENGINE_GENERATION_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "common/engine/sampler.h"
#include "common/model/text_stream.h"
#include "common/model/tokenizer.h"

namespace salamander::engine {

struct GenerationOptions {
  SamplingParams sampling;
  int64_t max_tokens = 0;
  std::vector<std::string> stop_texts;
  std::vector<int32_t> stop_token_ids;
  bool ignore_eos = false;
  int logprobs = -1;  // -1: none
};

enum class StopReason { kNone, kStop, kLength };

struct TokenLogprobs {
  float chosen = 0;
  std::vector<kernels::TokenLogprob> top;  // likeliest first; the lower id wins ties
};

struct GeneratedToken {
  int32_t token = 0;
  std::string text;  // what became certain
  std::optional<TokenLogprobs> logprobs;
  StopReason reason = StopReason::kNone;  // not kNone: this was the last token
};

// One per sequence; not thread-safe.
class Generation {
 public:
  // `tokenizer` may be null (a model without one): texts are then empty and stop_texts must be.
  Generation(GenerationOptions options, const model::Tokenizer* tokenizer, std::vector<int32_t> eos_token_ids,
             int64_t prompt_tokens, absl::Span<const int32_t> prompt_for_penalties);

  // Adds what the next token's draw must be.
  void Ask(DrawRequests& requests) const;
  // The next token, as drawn. An end-of-text or stop token is returned but adds no text.
  GeneratedToken Take(const Draw& draw);
  int64_t count() const { return count_; }

 private:
  bool EndsAt(int32_t token) const;

  GenerationOptions options_;
  std::vector<int32_t> eos_token_ids_;
  int64_t prompt_tokens_;
  TokenHistory history_;
  model::TextStream text_;
  int64_t count_ = 0;
};

}  // namespace salamander::engine

#endif  // SALAMANDER_COMMON_ENGINE_GENERATION_H_
