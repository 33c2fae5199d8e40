#include "common/worker/host_pool.h"

#include <bit>

#include "absl/strings/str_cat.h"
#include "common/base/log.h"

namespace salamander::worker {
namespace {

constexpr int64_t kLeastBytes = 64 << 10;

}  // namespace

HostPool::~HostPool() {
  for (const auto& [bytes, memory] : kept_) ops_->FreeHost(memory);
}

int64_t HostPool::Rounded(int64_t bytes) {
  if (bytes <= kLeastBytes) return kLeastBytes;
  const auto step = static_cast<int64_t>(std::bit_floor(static_cast<uint64_t>(bytes)) / 4);
  return (bytes + step - 1) / step * step;
}

std::byte* HostPool::Take(int64_t bytes) {
  const int64_t size = Rounded(bytes);
  {
    std::lock_guard lock(mutex_);
    if (const auto found = kept_.find(size); found != kept_.end()) {
      std::byte* const memory = found->second;
      kept_.erase(found);
      kept_bytes_ -= size;
      return memory;
    }
  }
  const absl::StatusOr<void*> memory = ops_->AllocateHost(size);
  if (memory.ok()) return static_cast<std::byte*>(*memory);
  auto* const plain = new std::byte[bytes];
  std::lock_guard lock(mutex_);
  if (plain_.empty()) {
    Log(LogLevel::kWarning, absl::StrCat("copies of items go the slow way: ", memory.status().ToString()));
  }
  plain_.insert(plain);
  return plain;
}

void HostPool::Give(std::byte* memory, int64_t bytes) {
  const int64_t size = Rounded(bytes);
  {
    std::lock_guard lock(mutex_);
    if (plain_.erase(memory) > 0) {
      delete[] memory;
      return;
    }
    if (kept_bytes_ + size <= kKeptBytes) {
      kept_.emplace(size, memory);
      kept_bytes_ += size;
      return;
    }
  }
  ops_->FreeHost(memory);
}

}  // namespace salamander::worker
