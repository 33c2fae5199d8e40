// Random 64-bit identities and how logs print them.
#ifndef SALAMANDER_COMMON_BASE_IDS_H_
#define SALAMANDER_COMMON_BASE_IDS_H_

#include <cstdint>
#include <string>

namespace salamander {

using RequestId = uint64_t;
// Random per process start, so that a restarted peer is a new peer.
using InstanceId = uint64_t;

// Never 0. From the operating system's generator; any thread.
uint64_t RandomId();

// 16 hexadecimal digits.
std::string IdToString(uint64_t id);

// What log lines about a request begin with, before a colon: "request ID", or "request ID trace ID" if the client gave
// a W3C trace context. log.h makes fields of both.
std::string RequestLabel(RequestId request, const std::string& trace_id);

}  // namespace salamander

#endif  // SALAMANDER_COMMON_BASE_IDS_H_
