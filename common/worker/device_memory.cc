#include "common/worker/device_memory.h"

#include <utility>

#include "common/base/status_macros.h"

namespace salamander::worker {

absl::Status DeviceMemory::ToHost(std::byte* to, const std::byte* from_device, int64_t bytes) {
  return With([&](kernels::Copier& copier) { return copier.ToHost(to, from_device, bytes); });
}

absl::Status DeviceMemory::ToDevice(std::byte* to_device, const std::byte* from, int64_t bytes) {
  return With([&](kernels::Copier& copier) { return copier.ToDevice(to_device, from, bytes); });
}

absl::Status DeviceMemory::OnDevice(std::byte* to_device, const std::byte* from_device, int64_t bytes) {
  return With([&](kernels::Copier& copier) { return copier.OnDevice(to_device, from_device, bytes); });
}

absl::Status DeviceMemory::With(absl::FunctionRef<absl::Status(kernels::Copier&)> copy) {
  std::unique_ptr<kernels::Copier> copier;
  {
    std::lock_guard lock(mutex_);
    if (!idle_.empty()) {
      copier = std::move(idle_.back());
      idle_.pop_back();
    }
  }
  if (copier == nullptr) {
    ASSIGN_OR_RETURN(copier, ops_->NewCopier());
  }
  const absl::Status status = copy(*copier);
  std::lock_guard lock(mutex_);
  idle_.push_back(std::move(copier));
  return status;
}

}  // namespace salamander::worker
