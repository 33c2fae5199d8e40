// Memory that items come from and go to, the host's or a device's.
#ifndef SALAMANDER_COMMON_STREAM_ITEM_MEMORY_H_
#define SALAMANDER_COMMON_STREAM_ITEM_MEMORY_H_

#include <cstddef>
#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/types/span.h"

namespace salamander::stream {

struct MemoryCopy {
  std::byte* to = nullptr;
  const std::byte* from = nullptr;
  int64_t bytes = 0;
};

// A device's memory. Any thread.
class ItemMemory {
 public:
  virtual ~ItemMemory() = default;
  // Block until all of the copies are done, or none of them goes on.
  virtual absl::Status ToHost(absl::Span<const MemoryCopy> copies) = 0;
  virtual absl::Status ToDevice(absl::Span<const MemoryCopy> copies) = 0;
  virtual absl::Status OnDevice(absl::Span<const MemoryCopy> copies) = 0;
  // Host memory that the device copies fastest to and from, with undefined contents. Never null; `bytes` above 0.
  virtual std::byte* AllocateHost(int64_t bytes) = 0;
  // With the bytes that were asked for.
  virtual void FreeHost(std::byte* memory, int64_t bytes) = 0;
};

// Host memory for items of an ItemMemory, which outlives it; null: just the host's.
struct FreeHostBuffer {
  ItemMemory* memory = nullptr;
  int64_t bytes = 0;
  void operator()(std::byte* buffer) const;
};
using HostBuffer = std::unique_ptr<std::byte[], FreeHostBuffer>;
HostBuffer NewHostBuffer(ItemMemory* memory, int64_t bytes);

// Copies the bytes of `from`, one run after the other, to `into`, which has as many, if in other pieces. A null memory
// is the host's; two that are not null are of the same device. DATA_LOSS if the lengths differ.
absl::Status CopyRuns(absl::Span<const absl::Span<const std::byte>> from, ItemMemory* from_memory,
                      absl::Span<const absl::Span<std::byte>> into, ItemMemory* into_memory);

}  // namespace salamander::stream

#endif  // SALAMANDER_COMMON_STREAM_ITEM_MEMORY_H_
