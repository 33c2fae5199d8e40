// A device's memory as the streams' threads reach it.
#ifndef SALAMANDER_COMMON_WORKER_DEVICE_MEMORY_H_
#define SALAMANDER_COMMON_WORKER_DEVICE_MEMORY_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "common/stream/item_memory.h"
#include "common/worker/host_pool.h"
#include "kernels/ops.h"

namespace salamander::worker {

// As many copiers as threads ever copied at the same time.
class DeviceMemory final : public stream::ItemMemory {
 public:
  // `ops` outlives it.
  explicit DeviceMemory(kernels::Ops* ops) : ops_(ops), host_(ops) {}

  absl::Status ToHost(absl::Span<const stream::MemoryCopy> copies) override;
  absl::Status ToDevice(absl::Span<const stream::MemoryCopy> copies) override;
  absl::Status OnDevice(absl::Span<const stream::MemoryCopy> copies) override;
  std::byte* AllocateHost(int64_t bytes) override { return host_.Take(bytes); }
  void FreeHost(std::byte* memory, int64_t bytes) override { host_.Give(memory, bytes); }

 private:
  // All copies by one copier, and then waits.
  absl::Status Copy(absl::Span<const stream::MemoryCopy> copies,
                    absl::Status (kernels::Copier::*begin)(void*, const void*, int64_t));

  kernels::Ops* const ops_;
  HostPool host_;
  std::mutex mutex_;
  std::vector<std::unique_ptr<kernels::Copier>> idle_;
};

}  // namespace salamander::worker

#endif  // SALAMANDER_COMMON_WORKER_DEVICE_MEMORY_H_
