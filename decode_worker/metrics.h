// What a decode worker measures.
#ifndef SALAMANDER_DECODE_WORKER_METRICS_H_
#define SALAMANDER_DECODE_WORKER_METRICS_H_

#include <atomic>
#include <cstdint>
#include <string>

#include "common/service/metrics.h"

namespace salamander::decode {

// How much work there is. Written by the engine thread, read by heartbeats and scrapes.
struct Load {
  std::atomic<int64_t> requests{0};  // that hold memory
  std::atomic<int64_t> waiting{0};   // ready, and the batch has no place
  std::atomic<int64_t> decoding{0};
  std::atomic<double> tokens_per_second{0};  // moving average over steps, all sequences together
};

class DecodeMetrics {
 public:
  // `load` outlives the last scrape.
  DecodeMetrics(service::Metrics* metrics, const Load* load)
      : step_seconds(metrics->Histogram("salamander_decode_step_seconds", "One step of the whole batch.",
                                        service::SecondsBuckets())),
        batch_size(metrics->Histogram("salamander_decode_batch_size", "Sequences in a step.", service::TokenBuckets())),
        inter_token_seconds(metrics->Histogram("salamander_decode_inter_token_seconds",
                                               "Between two tokens of one sequence.", service::SecondsBuckets())),
        queue_seconds(metrics->Histogram("salamander_decode_queue_seconds",
                                         "From the last item verified to the first place in a batch.",
                                         service::SecondsBuckets())),
        first_step_seconds(metrics->Histogram("salamander_decode_first_step_seconds",
                                              "From the place in a batch to the first token.",
                                              service::SecondsBuckets())),
        tokens(metrics->Counter("salamander_decode_tokens_total", "Tokens sent.")),
        metrics_(metrics) {
    Read("requests", "Requests that hold memory.", load->requests);
    Read("waiting_requests", "Requests ready to decode for which the batch has no place.", load->waiting);
    Read("decoding_requests", "Requests in the batch.", load->decoding);
    Read("tokens_per_second", "Moving average over steps.", load->tokens_per_second);
    for (const char* outcome : {"ok", "cancelled", "failed", "expired"}) Finished(outcome);
  }

  // Requests by how they ended.
  prometheus::Counter& Finished(const std::string& outcome) {
    return metrics_->Counter("salamander_decode_requests_total", "Requests by how they ended.", {{"outcome", outcome}});
  }

  prometheus::Histogram& step_seconds;
  prometheus::Histogram& batch_size;
  prometheus::Histogram& inter_token_seconds;
  prometheus::Histogram& queue_seconds;
  prometheus::Histogram& first_step_seconds;
  prometheus::Counter& tokens;

 private:
  template <typename T>
  void Read(const std::string& name, const std::string& help, const std::atomic<T>& value) {
    metrics_->GaugeFrom("salamander_decode_" + name, help, {},
                        [&value] { return static_cast<double>(value.load(std::memory_order_relaxed)); });
  }

  service::Metrics* metrics_;
};

}  // namespace salamander::decode

#endif  // SALAMANDER_DECODE_WORKER_METRICS_H_
