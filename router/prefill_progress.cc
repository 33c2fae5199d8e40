#include "router/prefill_progress.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace salamander::router {

PrefillProgress::PrefillProgress(const v1::Plan& plan) : prompt_tokens_(plan.prompt_tokens()) {
  for (const v1::SpanAssignment& span : plan.spans()) {
    spans_.push_back({.tokens = span.end() - span.begin(), .worker = span.worker()});
  }
}

absl::Status PrefillProgress::CheckOwner(int32_t span, int worker) const {
  if (span < 0 || span >= static_cast<int>(spans_.size()) || spans_[span].worker != worker) {
    return absl::InternalError(absl::StrCat("reported span ", span, " of ", spans_.size(), ", which is not its own"));
  }
  return absl::OkStatus();
}

void PrefillProgress::Advance(int32_t span, int64_t tokens_done) {
  Span& s = spans_[span];
  const int64_t done = std::clamp(tokens_done, s.done_tokens, s.tokens);
  done_tokens_ += done - s.done_tokens;
  s.done_tokens = done;
}

bool PrefillProgress::Finish(int32_t span) {
  if (spans_[span].done) return false;
  Advance(span, spans_[span].tokens);
  spans_[span].done = true;
  ++spans_done_;
  return true;
}

std::optional<v1::Progress> PrefillProgress::Message(double now, double seconds) {
  if (done_tokens_ == told_tokens_) return std::nullopt;
  if (!all_computed() && told_at_.has_value() && now - *told_at_ < kInterval) return std::nullopt;
  told_tokens_ = done_tokens_;
  told_at_ = now;
  v1::Progress progress;
  progress.set_prompt_tokens(prompt_tokens_);
  progress.set_prefilled_tokens(done_tokens_);
  if (seconds > 0) {
    progress.set_tokens_per_second(done_tokens_ / seconds);
    progress.set_seconds_left((prompt_tokens_ - done_tokens_) / progress.tokens_per_second());
  }
  return progress;
}

}  // namespace salamander::router
