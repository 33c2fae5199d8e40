// What both ends of a stream agree on beyond stream.proto.
#ifndef SALAMANDER_COMMON_STREAM_WIRE_H_
#define SALAMANDER_COMMON_STREAM_WIRE_H_

#include <cstdint>
#include <string_view>

namespace salamander::stream {

// A message with this header (no ItemHeader serializes to it: 0xFF opens no valid field) warms a link and measures it.
// The receiver takes its payload, of at most kMaxProbeBytes, and forgets it.
inline constexpr std::string_view kProbeHeader = "\xFFsalamander probe";
inline constexpr int64_t kMaxProbeBytes = 1 << 20;

}  // namespace salamander::stream

#endif  // SALAMANDER_COMMON_STREAM_WIRE_H_
