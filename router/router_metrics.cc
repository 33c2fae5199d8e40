#include "router/router_metrics.h"

#include <string>
#include <vector>

#include "router/hello_checks.h"

namespace salamander::router {
namespace {

// A decision takes microseconds; the common buckets begin at a millisecond.
const std::vector<double>& DecisionBuckets() {
  static const auto* buckets =
      new std::vector<double>{1e-6, 2.5e-6, 5e-6, 1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 1e-2, 0.1};
  return *buckets;
}

double CountWorkers(const Registry& registry, v1::WorkerRole role, bool ready) {
  double count = 0;
  for (const WorkerView& worker : registry.Workers()) {
    count += worker.hello->role() == role && worker.last->ready() == ready;
  }
  return count;
}

}  // namespace

RouterMetrics::RouterMetrics(service::Metrics* metrics)
    : inter_token_seconds(metrics->Histogram("salamander_router_inter_token_seconds",
                                             "Time between two token messages of a request.",
                                             service::SecondsBuckets())),
      decision_seconds(metrics->Histogram("salamander_router_decision_seconds",
                                          "Time to choose workers and plan for one request.", DecisionBuckets())),
      metrics_(metrics),
      ttft_(Seconds("ttft", "Time to first token of every request that got one: the sum of the six parts.")),
      router_queue_(Seconds("ttft_router_queue", "Part of TTFT: arrival to spans sent.")),
      prefill_queue_(Seconds("ttft_prefill_queue", "Part of TTFT: spans sent to first span started.")),
      prefill_(Seconds("ttft_prefill", "Part of TTFT: first span started to last span finished.")),
      transfer_exposed_(Seconds("ttft_transfer_exposed", "Part of TTFT: last span finished to all items verified.")),
      decode_queue_(Seconds("ttft_decode_queue", "Part of TTFT: all items verified to batch joined.")),
      first_step_(Seconds("ttft_first_step", "Part of TTFT: batch joined to first token.")),
      request_(Seconds("request", "Time from a completed request's arrival to its end.")),
      prompt_tokens_(metrics->Counter("salamander_router_prompt_tokens_total", "Prompt tokens of completed requests.")),
      completion_tokens_(
          metrics->Counter("salamander_router_completion_tokens_total", "Tokens generated for completed requests.")),
      prompt_length_(Tokens("prompt_tokens", "Prompt tokens per completed request.")),
      completion_length_(Tokens("completion_tokens", "Tokens generated per completed request.")) {
  for (const absl::StatusCode outcome : kOutcomes) Outcome(outcome);
  for (const v1::FinishReason reason : {v1::FINISH_REASON_STOP, v1::FINISH_REASON_LENGTH}) Finish(reason);
  for (const bool lost : {false, true}) Requeue(lost);
}

prometheus::Histogram& RouterMetrics::Seconds(const std::string& what, const std::string& help) {
  return metrics_->Histogram("salamander_router_" + what + "_seconds", help, service::SecondsBuckets());
}

prometheus::Histogram& RouterMetrics::Tokens(const std::string& what, const std::string& help) {
  return metrics_->Histogram("salamander_router_request_" + what, help, service::TokenBuckets());
}

void RouterMetrics::Watch(const Registry* registry, const Admission* admission) {
  metrics_->GaugeFrom("salamander_router_queued_requests", "Requests waiting for admission.", {},
                      [admission] { return static_cast<double>(admission->queued()); });
  metrics_->GaugeFrom("salamander_router_queued_tokens", "Prompt tokens of the requests waiting for admission.", {},
                      [admission] { return static_cast<double>(admission->queued_tokens()); });
  metrics_->GaugeFrom("salamander_router_queue_limit_requests", "Requests that may wait for admission.", {},
                      [admission] { return static_cast<double>(admission->queue_limit()); });
  metrics_->GaugeFrom("salamander_router_running_requests", "Requests admitted and not ended.", {},
                      [admission] { return static_cast<double>(admission->running()); });
  for (const v1::WorkerRole role : {v1::WORKER_ROLE_PREFILL, v1::WORKER_ROLE_DECODE}) {
    metrics_->CounterFrom("salamander_router_lost_workers_total", "Workers that went without having drained.",
                          {{"role", RoleName(role)}},
                          [registry, role] { return static_cast<double>(registry->lost(role)); });
    for (const bool ready : {false, true}) {
      metrics_->GaugeFrom("salamander_router_workers", "Registered workers.",
                          {{"role", RoleName(role)}, {"ready", ready ? "true" : "false"}},
                          [registry, role, ready] { return CountWorkers(*registry, role, ready); });
    }
  }
}

prometheus::Counter& RouterMetrics::Outcome(absl::StatusCode outcome) {
  return metrics_->Counter("salamander_router_requests_total", "Requests by their gRPC status.",
                           {{"outcome", OutcomeName(outcome)}});
}

prometheus::Counter& RouterMetrics::Finish(v1::FinishReason reason) {
  return metrics_->Counter("salamander_router_finished_requests_total", "Completed requests by why they ended.",
                           {{"reason", reason == v1::FINISH_REASON_STOP ? "stop" : "length"}});
}

prometheus::Counter& RouterMetrics::Requeue(bool lost) {
  return metrics_->Counter("salamander_router_requeues_total",
                           "Times that a placed request went back to the queue: a worker had no memory, or was lost.",
                           {{"reason", lost ? "lost" : "memory"}});
}

void RouterMetrics::Requeued(bool lost) { Requeue(lost).Increment(); }

void RouterMetrics::Ended(absl::StatusCode outcome) { Outcome(outcome).Increment(); }

void RouterMetrics::FirstToken(const v1::Timing& timing) {
  ttft_.Observe(timing.ttft());
  router_queue_.Observe(timing.router_queue());
  prefill_queue_.Observe(timing.prefill_queue());
  prefill_.Observe(timing.prefill());
  transfer_exposed_.Observe(timing.transfer_exposed());
  decode_queue_.Observe(timing.decode_queue());
  first_step_.Observe(timing.first_step());
}

void RouterMetrics::Completed(const v1::Finished& finished, double seconds) {
  request_.Observe(seconds);
  Finish(finished.reason()).Increment();
  prompt_tokens_.Increment(finished.usage().prompt_tokens());
  completion_tokens_.Increment(finished.usage().completion_tokens());
  prompt_length_.Observe(finished.usage().prompt_tokens());
  completion_length_.Observe(finished.usage().completion_tokens());
}

std::string OutcomeName(absl::StatusCode code) { return absl::StatusCodeToString(code); }

}  // namespace salamander::router
