// Where a request's time to first token went. Moments are on the router's clock; what happens inside the decode worker
// after all items are there is taken from its own report, as lengths, so that no clocks need to agree.
//
// One per request, used from its executor.
#ifndef SALAMANDER_ROUTER_REQUEST_TIMING_H_
#define SALAMANDER_ROUTER_REQUEST_TIMING_H_

#include <cstdint>
#include <optional>

#include "salamander/v1/inference.pb.h"

namespace salamander::router {

class RequestTiming {
 public:
  // `now` is in seconds everywhere and never goes back.
  explicit RequestTiming(double now) : arrived_(now) {}

  // Each keeps its first call.
  void PrefillSent(double now);
  void SpanStarted(double now);
  // The last span is computed, or everything has arrived at the decode worker, whichever is heard of first.
  void Prefilled(double now);
  // What the decode worker says of the first token, before it passes.
  void FirstTokenAtWorker(double decode_queue_seconds, double first_step_seconds);
  // A chunk of `tokens` ids passed; one of none does not count. Returns the seconds since the one before it, if there
  // was one.
  std::optional<double> Tokens(double now, int tokens);

  // The six parts add up to ttft exactly, none is negative. Without a token, the time until `now` counts as ttft.
  v1::Timing Report(double now) const;

  double arrived() const { return arrived_; }
  // 0 until the first span started.
  double SecondsSincePrefillBegan(double now) const;
  int64_t tokens() const { return tokens_; }

 private:
  double arrived_;
  std::optional<double> prefill_sent_, span_started_, prefilled_, first_token_;
  double decode_queue_seconds_ = 0, first_step_seconds_ = 0;
  double last_token_ = 0;
  int64_t tokens_ = 0;
  int64_t tokens_in_first_chunk_ = 0;
};

}  // namespace salamander::router

#endif  // SALAMANDER_ROUTER_REQUEST_TIMING_H_
