// Memory that items come from and go to, the host's or a device's.
#ifndef SALAMANDER_COMMON_STREAM_ITEM_MEMORY_H_
#define SALAMANDER_COMMON_STREAM_ITEM_MEMORY_H_

#include <cstddef>
#include <cstdint>

#include "absl/status/status.h"
#include "absl/types/span.h"

namespace salamander::stream {

// A device's memory. Blocking; any thread.
class ItemMemory {
 public:
  virtual ~ItemMemory() = default;
  virtual absl::Status ToHost(std::byte* to, const std::byte* from_device, int64_t bytes) = 0;
  virtual absl::Status ToDevice(std::byte* to_device, const std::byte* from, int64_t bytes) = 0;
  virtual absl::Status OnDevice(std::byte* to_device, const std::byte* from_device, int64_t bytes) = 0;
};

// Copies the bytes of `from`, one run after the other, to `into`, which has as many, if in other pieces. A null memory
// is the host's; two that are not null are of the same device. DATA_LOSS if the lengths differ.
absl::Status CopyRuns(absl::Span<const absl::Span<const std::byte>> from, ItemMemory* from_memory,
                      absl::Span<const absl::Span<std::byte>> into, ItemMemory* into_memory);

}  // namespace salamander::stream

#endif  // SALAMANDER_COMMON_STREAM_ITEM_MEMORY_H_
