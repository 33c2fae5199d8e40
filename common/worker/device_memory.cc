#include "common/worker/device_memory.h"

#include <utility>

#include "common/base/status_macros.h"

namespace salamander::worker {

using kernels::Copier;
using stream::MemoryCopy;

absl::Status DeviceMemory::ToHost(absl::Span<const MemoryCopy> copies) { return Copy(copies, &Copier::ToHost); }

absl::Status DeviceMemory::ToDevice(absl::Span<const MemoryCopy> copies) { return Copy(copies, &Copier::ToDevice); }

absl::Status DeviceMemory::OnDevice(absl::Span<const MemoryCopy> copies) { return Copy(copies, &Copier::OnDevice); }

absl::Status DeviceMemory::Copy(absl::Span<const MemoryCopy> copies,
                                absl::Status (Copier::*begin)(void*, const void*, int64_t)) {
  std::unique_ptr<Copier> copier;
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
  absl::Status status;
  for (size_t i = 0; i < copies.size() && status.ok(); ++i) {
    status = ((*copier).*begin)(copies[i].to, copies[i].from, copies[i].bytes);
  }
  // Also those that began before one failed: their memory is no longer theirs when this returns.
  const absl::Status waited = copier->Wait();
  std::lock_guard lock(mutex_);
  idle_.push_back(std::move(copier));
  return status.ok() ? waited : status;
}

}  // namespace salamander::worker
