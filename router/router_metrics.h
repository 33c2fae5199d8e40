// The router's metrics, by name, in one place.
#ifndef SALAMANDER_ROUTER_ROUTER_METRICS_H_
#define SALAMANDER_ROUTER_ROUTER_METRICS_H_

#include "absl/status/status.h"
#include "common/service/metrics.h"
#include "router/admission.h"
#include "router/registry.h"
#include "salamander/v1/inference.pb.h"

namespace salamander::router {

// Any thread.
class RouterMetrics {
 public:
  explicit RouterMetrics(service::Metrics* metrics);

  // Gauges that are read at each scrape. Both outlive the metrics' server.
  void Watch(const Registry* registry, const Admission* admission);

  // A request's first token passed: its time and where that went.
  void FirstToken(const v1::Timing& timing);
  // A request came to its end.
  void Ended(absl::StatusCode outcome);
  // And all went well, `seconds` after it came.
  void Completed(const v1::Finished& finished, double seconds);
  // A request that was placed went back to the queue: `lost` if a worker could not be reached, else for want of memory.
  void Requeued(bool lost);

  prometheus::Histogram& inter_token_seconds;
  // Choosing workers and plan for one request.
  prometheus::Histogram& decision_seconds;

 private:
  prometheus::Histogram& Seconds(const std::string& what, const std::string& help);
  prometheus::Histogram& Tokens(const std::string& what, const std::string& help);
  prometheus::Counter& Outcome(absl::StatusCode outcome);
  prometheus::Counter& Finish(v1::FinishReason reason);
  prometheus::Counter& Requeue(bool lost);

  service::Metrics* const metrics_;
  prometheus::Histogram &ttft_, &router_queue_, &prefill_queue_, &prefill_, &transfer_exposed_, &decode_queue_,
      &first_step_, &request_;
  prometheus::Counter &prompt_tokens_, &completion_tokens_;
  prometheus::Histogram &prompt_length_, &completion_length_;
};

// "OK", "DEADLINE_EXCEEDED", …: gRPC's names.
std::string OutcomeName(absl::StatusCode code);

// How requests end (docs/api.md). Their counters are there from the start, so that the first failure is an increase.
inline constexpr absl::StatusCode kOutcomes[] = {
    absl::StatusCode::kOk,
    absl::StatusCode::kInvalidArgument,
    absl::StatusCode::kResourceExhausted,
    absl::StatusCode::kFailedPrecondition,
    absl::StatusCode::kDeadlineExceeded,
    absl::StatusCode::kCancelled,
    absl::StatusCode::kUnavailable,
    absl::StatusCode::kDataLoss,
    absl::StatusCode::kInternal,
};

}  // namespace salamander::router

#endif  // SALAMANDER_ROUTER_ROUTER_METRICS_H_
