#include "common/engine/generation.h"

#include <algorithm>
#include <utility>

namespace salamander::engine {

Generation::Generation(GenerationOptions options, const model::Tokenizer* tokenizer, std::vector<int32_t> eos_token_ids,
                       int64_t prompt_tokens, absl::Span<const int32_t> prompt_for_penalties)
    : options_(std::move(options)),
      eos_token_ids_(std::move(eos_token_ids)),
      prompt_tokens_(prompt_tokens),
      text_(tokenizer, options_.stop_texts) {
  if (!options_.sampling.needs_prompt()) return;
  for (const int32_t token : prompt_for_penalties) ++history_.prompt_counts[token];
}

bool Generation::EndsAt(int32_t token) const {
  auto contains = [token](const std::vector<int32_t>& ids) { return std::ranges::find(ids, token) != ids.end(); };
  return (!options_.ignore_eos && contains(eos_token_ids_)) || contains(options_.stop_token_ids);
}

void Generation::Ask(DrawRequests& requests) const {
  requests.Add(options_.sampling, history_, prompt_tokens_ + count_, options_.logprobs);
}

GeneratedToken Generation::Take(const Draw& draw) {
  GeneratedToken next;
  next.token = draw.token;
  if (options_.logprobs >= 0) next.logprobs = {draw.logprob, {draw.top.begin(), draw.top.end()}};
  ++history_.output_counts[next.token];
  ++count_;
  if (EndsAt(next.token)) {
    next.reason = StopReason::kStop;
    next.text = text_.Finish();
    return next;
  }
  next.text = text_.Push(next.token);
  if (text_.stopped()) {
    next.reason = StopReason::kStop;
  } else if (count_ >= options_.max_tokens) {
    next.reason = StopReason::kLength;
    next.text += text_.Finish();
  }
  return next;
}

}  // namespace salamander::engine
