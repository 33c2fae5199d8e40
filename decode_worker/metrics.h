// What a decode worker measures.
#ifndef SALAMANDER_DECODE_WORKER_METRICS_H_
#define SALAMANDER_DECODE_WORKER_METRICS_H_

#include <atomic>
#include <cstdint>

#include "common/service/metrics.h"
#include "common/worker/load.h"

namespace salamander::decode {

struct Load {
  std::atomic<int64_t> waiting{0};  // ready, and the batch has no place
  std::atomic<int64_t> decoding{0};
  worker::Rate tokens_per_second{0.1};  // over steps, all sequences together
};

struct DecodeMetrics {
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
        tokens(metrics->Counter("salamander_decode_tokens_total", "Tokens sent.")) {
    worker::ExportGauge(load->waiting, "salamander_decode_waiting_requests",
                        "Requests ready to decode for which the batch has no place.", metrics);
    worker::ExportGauge(load->decoding, "salamander_decode_decoding_requests", "Requests in the batch.", metrics);
    worker::ExportGauge(load->tokens_per_second.average(), "salamander_decode_tokens_per_second",
                        "Moving average over steps.", metrics);
  }

  prometheus::Histogram& step_seconds;
  prometheus::Histogram& batch_size;
  prometheus::Histogram& inter_token_seconds;
  prometheus::Histogram& queue_seconds;
  prometheus::Histogram& first_step_seconds;
  prometheus::Counter& tokens;
};

}  // namespace salamander::decode

#endif  // SALAMANDER_DECODE_WORKER_METRICS_H_
