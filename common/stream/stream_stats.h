// Counters of a process's streams, read by its metrics. Plain atomics: no room below metrics depends on them.
#ifndef SALAMANDER_COMMON_STREAM_STREAM_STATS_H_
#define SALAMANDER_COMMON_STREAM_STREAM_STATS_H_

#include <array>
#include <atomic>
#include <cstdint>

#include "salamander/v1/stream.pb.h"

namespace salamander::stream {

struct StreamStats {
  struct PerCodec {
    std::atomic<int64_t> items{0}, raw_bytes{0}, encoded_bytes{0};
  };
  // Indexed by v1::Codec.
  std::array<PerCodec, 3> sent, received;
  std::atomic<int64_t> checksum_failures{0};  // received bytes that do not match
  std::atomic<int64_t> refused_unknown{0};    // no such subscription: late, stale or forged
  std::atomic<int64_t> refused_secret{0};     // not the subscription's secret: forged, or meant for another
  std::atomic<int64_t> refused_duplicate{0};
  std::atomic<int64_t> refused_malformed{0};  // header unreadable, sizes that do not fit
  std::atomic<int64_t> lost_items{0};         // missing after their span was finished
  std::atomic<int64_t> send_failures{0};
};

}  // namespace salamander::stream

#endif  // SALAMANDER_COMMON_STREAM_STREAM_STATS_H_
