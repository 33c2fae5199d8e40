// What a prefill worker measures.
#ifndef SALAMANDER_PREFILL_WORKER_METRICS_H_
#define SALAMANDER_PREFILL_WORKER_METRICS_H_

#include <atomic>
#include <cstdint>
#include <string>

#include "common/service/metrics.h"

namespace salamander::prefill {

// How much work there is. Written by the engine thread, read by heartbeats and scrapes.
struct Load {
  std::atomic<int64_t> queued_tokens{0};  // of own spans not computed
  std::atomic<int64_t> requests{0};       // that hold memory
  std::atomic<int64_t> active_spans{0};
  std::atomic<double> tokens_per_second{0};  // moving average over spans; 0 before the first
};

class PrefillMetrics {
 public:
  // `load` outlives the last scrape.
  PrefillMetrics(service::Metrics* metrics, const Load* load)
      : span_seconds(metrics->Histogram("salamander_prefill_span_seconds", "First step of a span to its last.",
                                        service::SecondsBuckets())),
        span_compute_seconds(metrics->Histogram("salamander_prefill_span_compute_seconds",
                                                "The part of a span's time spent computing it.",
                                                service::SecondsBuckets())),
        tokens(metrics->Counter("salamander_prefill_tokens_total", "Prompt tokens computed.")),
        metrics_(metrics) {
    Read("queued_tokens", "Tokens of spans not computed.", load->queued_tokens);
    Read("requests", "Requests that hold memory.", load->requests);
    Read("active_spans", "Spans begun and not finished.", load->active_spans);
    Read("tokens_per_second", "Moving average of the rate inside spans.", load->tokens_per_second);
    for (const char* outcome : {"ok", "cancelled", "failed", "expired"}) Finished(outcome);
  }

  // Requests by how they ended.
  prometheus::Counter& Finished(const std::string& outcome) {
    return metrics_->Counter("salamander_prefill_requests_total", "Requests by how they ended.",
                             {{"outcome", outcome}});
  }

  prometheus::Histogram& span_seconds;
  prometheus::Histogram& span_compute_seconds;
  prometheus::Counter& tokens;

 private:
  template <typename T>
  void Read(const std::string& name, const std::string& help, const std::atomic<T>& value) {
    metrics_->GaugeFrom("salamander_prefill_" + name, help, {},
                        [&value] { return static_cast<double>(value.load(std::memory_order_relaxed)); });
  }

  service::Metrics* metrics_;
};

}  // namespace salamander::prefill

#endif  // SALAMANDER_PREFILL_WORKER_METRICS_H_
