#include "common/worker/stream_metrics.h"

#include <atomic>
#include <cstdint>

namespace salamander::worker {
namespace {

void Export(const std::atomic<int64_t>& value, const std::string& name, const std::string& help,
            const service::Labels& labels, service::Metrics* metrics) {
  metrics->CounterFrom(name, help, labels, [&value] { return static_cast<double>(value.load()); });
}

void ExportCodec(const stream::StreamStats::PerCodec& stats, const std::string& prefix, const service::Labels& labels,
                 service::Metrics* metrics) {
  Export(stats.items, prefix + "stream_items_total", "Items of state streams.", labels, metrics);
  Export(stats.raw_bytes, prefix + "stream_raw_bytes_total", "Bytes of items before encoding.", labels, metrics);
  Export(stats.encoded_bytes, prefix + "stream_encoded_bytes_total", "Bytes of items on the wire.", labels, metrics);
}

}  // namespace

void ExportStreamStats(const stream::StreamStats& stats, const std::string& prefix, service::Metrics* metrics) {
  for (const auto& [codec, name] : {std::pair{v1::CODEC_RAW, "raw"}, std::pair{v1::CODEC_LOSSLESS, "lossless"}}) {
    ExportCodec(stats.sent[codec], prefix, {{"direction", "sent"}, {"codec", name}}, metrics);
    ExportCodec(stats.received[codec], prefix, {{"direction", "received"}, {"codec", name}}, metrics);
  }
  const std::string refused = prefix + "stream_refused_total";
  const std::string refused_help = "Items refused: no such reservation, not its secret, received before, or malformed.";
  Export(stats.refused_unknown, refused, refused_help, {{"reason", "unknown"}}, metrics);
  Export(stats.refused_secret, refused, refused_help, {{"reason", "secret"}}, metrics);
  Export(stats.refused_duplicate, refused, refused_help, {{"reason", "duplicate"}}, metrics);
  Export(stats.refused_malformed, refused, refused_help, {{"reason", "malformed"}}, metrics);
  Export(stats.checksum_failures, prefix + "stream_checksum_failures_total",
         "Items received whose bytes did not match their checksum.", {}, metrics);
  Export(stats.lost_items, prefix + "stream_lost_items_total", "Items missing after their span was finished.", {},
         metrics);
  Export(stats.send_failures, prefix + "stream_send_failures_total", "Sends of items that failed.", {}, metrics);
}

}  // namespace salamander::worker
