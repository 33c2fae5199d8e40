// What a prefill worker measures.
#ifndef SALAMANDER_PREFILL_WORKER_METRICS_H_
#define SALAMANDER_PREFILL_WORKER_METRICS_H_

#include <atomic>
#include <cstdint>

#include "common/service/metrics.h"
#include "common/worker/load.h"

namespace salamander::prefill {

struct Load {
  std::atomic<int64_t> queued_tokens{0};  // of own spans not computed
  std::atomic<int64_t> active_spans{0};
  worker::Rate tokens_per_second{0.3};  // over spans
};

struct PrefillMetrics {
  // `load` outlives the last scrape.
  PrefillMetrics(service::Metrics* metrics, const Load* load)
      : span_seconds(metrics->Histogram("salamander_prefill_span_seconds", "First step of a span to its last.",
                                        service::SecondsBuckets())),
        span_compute_seconds(metrics->Histogram("salamander_prefill_span_compute_seconds",
                                                "The part of a span's time spent computing it.",
                                                service::SecondsBuckets())),
        tokens(metrics->Counter("salamander_prefill_tokens_total", "Prompt tokens computed.")) {
    worker::ExportGauge(load->queued_tokens, "salamander_prefill_queued_tokens", "Tokens of spans not computed.",
                        metrics);
    worker::ExportGauge(load->active_spans, "salamander_prefill_active_spans", "Spans begun and not finished.",
                        metrics);
    worker::ExportGauge(load->tokens_per_second.average(), "salamander_prefill_tokens_per_second",
                        "Moving average of the rate inside spans.", metrics);
  }

  prometheus::Histogram& span_seconds;
  prometheus::Histogram& span_compute_seconds;
  prometheus::Counter& tokens;
};

}  // namespace salamander::prefill

#endif  // SALAMANDER_PREFILL_WORKER_METRICS_H_
