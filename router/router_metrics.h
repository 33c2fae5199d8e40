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

  // A request came to its end.
  void Ended(absl::StatusCode outcome);
  void Completed(const v1::Finished& finished);

  prometheus::Histogram& inter_token_seconds;
  // Choosing workers and plan for one request.
  prometheus::Histogram& decision_seconds;

 private:
  prometheus::Histogram& Seconds(const std::string& what, const std::string& help);
  prometheus::Histogram& Tokens(const std::string& what, const std::string& help);

  service::Metrics* const metrics_;
  prometheus::Histogram &ttft_, &router_queue_, &prefill_queue_, &prefill_, &transfer_exposed_, &decode_queue_,
      &first_step_;
  prometheus::Counter &prompt_tokens_, &completion_tokens_;
  prometheus::Histogram &prompt_length_, &completion_length_;
};

// "OK", "DEADLINE_EXCEEDED", …: gRPC's names.
std::string OutcomeName(absl::StatusCode code);

}  // namespace salamander::router

#endif  // SALAMANDER_ROUTER_ROUTER_METRICS_H_
