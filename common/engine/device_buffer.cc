#include <utility>

#include "common/base/status_macros.h"
#include "common/engine/model.h"

namespace salamander::engine {

absl::StatusOr<DeviceBuffer> DeviceBuffer::Allocate(kernels::Ops& ops, MemoryLedger& ledger, MemoryOwner owner,
                                                    int64_t bytes) {
  DeviceBuffer buffer;
  ASSIGN_OR_RETURN(buffer.hold_, ledger.Take(owner, bytes));
  ASSIGN_OR_RETURN(buffer.data_, ops.Allocate(bytes));
  buffer.ops_ = &ops;
  return buffer;
}

DeviceBuffer::DeviceBuffer(DeviceBuffer&& other) noexcept { *this = std::move(other); }

DeviceBuffer& DeviceBuffer::operator=(DeviceBuffer&& other) noexcept {
  if (this == &other) return *this;
  // Memory first, then its place in the ledger: nobody is promised bytes that are not free yet.
  if (data_ != nullptr) ops_->Free(data_);
  ops_ = std::exchange(other.ops_, nullptr);
  data_ = std::exchange(other.data_, nullptr);
  hold_ = std::move(other.hold_);
  return *this;
}

DeviceBuffer::~DeviceBuffer() {
  if (data_ != nullptr) ops_->Free(data_);
}

absl::StatusOr<HostBuffer> HostBuffer::Allocate(kernels::Ops& ops, int64_t bytes) {
  HostBuffer buffer;
  ASSIGN_OR_RETURN(void* const memory, ops.AllocateHost(bytes));
  buffer.data_ = {memory, [&ops](void* freed) { ops.FreeHost(freed); }};
  return buffer;
}

}  // namespace salamander::engine
