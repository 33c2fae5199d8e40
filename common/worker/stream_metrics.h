// The streams' counters as metrics.
#ifndef SALAMANDER_COMMON_WORKER_STREAM_METRICS_H_
#define SALAMANDER_COMMON_WORKER_STREAM_METRICS_H_

#include <string>

#include "common/service/metrics.h"
#include "common/stream/stream_stats.h"

namespace salamander::worker {

// PREFIXstream_items_total{direction,codec}, …raw_bytes_total, …encoded_bytes_total, and the failures. `stats` outlives
// `metrics`' last scrape.
void ExportStreamStats(const stream::StreamStats& stats, const std::string& prefix, service::Metrics* metrics);

}  // namespace salamander::worker

#endif  // SALAMANDER_COMMON_WORKER_STREAM_METRICS_H_
