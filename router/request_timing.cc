#include "router/request_timing.h"

#include <algorithm>

namespace salamander::router {
namespace {

void KeepFirst(std::optional<double>& moment, double now) {
  if (!moment.has_value()) moment = now;
}

}  // namespace

void RequestTiming::PrefillSent(double now) { KeepFirst(prefill_sent_, now); }
void RequestTiming::SpanStarted(double now) { KeepFirst(span_started_, now); }
void RequestTiming::Prefilled(double now) { KeepFirst(prefilled_, now); }

void RequestTiming::FirstTokenAtWorker(double decode_queue_seconds, double first_step_seconds) {
  decode_queue_seconds_ = decode_queue_seconds;
  first_step_seconds_ = first_step_seconds;
}

std::optional<double> RequestTiming::Tokens(double now, int tokens) {
  std::optional<double> gap;
  if (tokens == 0) return gap;  // Text that was held back.
  if (first_token_.has_value()) {
    gap = now - last_token_;
  } else {
    first_token_ = now;
    tokens_in_first_chunk_ = tokens;
  }
  last_token_ = now;
  tokens_ += tokens;
  return gap;
}

v1::Timing RequestTiming::Report(double now) const {
  const double end = first_token_.value_or(now);
  // A moment that was never heard of coincides with the one before it.
  const double sent = std::clamp(prefill_sent_.value_or(arrived_), arrived_, end);
  const double started = std::clamp(span_started_.value_or(sent), sent, end);
  const double prefilled = std::clamp(prefilled_.value_or(started), started, end);
  // The worker's lengths cannot be longer than what the router saw pass; what they leave was spent on the transfer.
  const double tail = end - prefilled;
  const double first_step = std::clamp(first_step_seconds_, 0.0, tail);
  const double decode_queue = std::clamp(decode_queue_seconds_, 0.0, tail - first_step);

  v1::Timing timing;
  timing.set_router_queue(sent - arrived_);
  timing.set_prefill_queue(started - sent);
  timing.set_prefill(prefilled - started);
  timing.set_transfer_exposed(std::max(0.0, tail - first_step - decode_queue));
  timing.set_decode_queue(decode_queue);
  timing.set_first_step(first_step);
  // Summed rather than end - arrived_, so that rounding cannot make the parts differ from the whole.
  timing.set_ttft(timing.router_queue() + timing.prefill_queue() + timing.prefill() + timing.transfer_exposed() +
                  timing.decode_queue() + timing.first_step());
  const int64_t later_tokens = tokens_ - tokens_in_first_chunk_;
  if (later_tokens > 0 && last_token_ > end) timing.set_tokens_per_second(later_tokens / (last_token_ - end));
  return timing;
}

double RequestTiming::SecondsSincePrefillBegan(double now) const {
  return span_started_.has_value() ? now - *span_started_ : 0;
}

}  // namespace salamander::router
