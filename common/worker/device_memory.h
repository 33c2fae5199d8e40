// A device's memory as the streams' threads reach it.
#ifndef SALAMANDER_COMMON_WORKER_DEVICE_MEMORY_H_
#define SALAMANDER_COMMON_WORKER_DEVICE_MEMORY_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "common/stream/item_memory.h"
#include "kernels/ops.h"

namespace salamander::worker {

// As many copiers as threads ever copied at the same time.
class DeviceMemory final : public stream::ItemMemory {
 public:
  // `ops` outlives it.
  explicit DeviceMemory(kernels::Ops* ops) : ops_(ops) {}

  absl::Status ToHost(std::byte* to, const std::byte* from_device, int64_t bytes) override;
  absl::Status ToDevice(std::byte* to_device, const std::byte* from, int64_t bytes) override;
  absl::Status OnDevice(std::byte* to_device, const std::byte* from_device, int64_t bytes) override;

 private:
  absl::Status With(absl::FunctionRef<absl::Status(kernels::Copier&)> copy);

  kernels::Ops* const ops_;
  std::mutex mutex_;
  std::vector<std::unique_ptr<kernels::Copier>> idle_;
};

}  // namespace salamander::worker

#endif  // SALAMANDER_COMMON_WORKER_DEVICE_MEMORY_H_
