#include "common/stream/staging.h"

#include <utility>
#include <vector>

namespace salamander::stream {

Staging::Buffer::Buffer(std::shared_ptr<Staging> staging, uint64_t id, ItemMemory* memory, int64_t bytes)
    : staging_(std::move(staging)), id_(id), bytes_(bytes), memory_(NewHostBuffer(memory, bytes)) {}

Staging::Buffer::~Buffer() {
  memory_.reset();  // Before the ledger hears of it.
  staging_->Free(id_);
}

Staging::Staging(int64_t budget_bytes, MemoryLedger* ledger, std::function<void()> retry_later)
    : budget_(budget_bytes), ledger_(ledger), retry_later_(std::move(retry_later)) {}

void Staging::Ask(const void* owner, ItemMemory* memory, int64_t bytes, Grant grant) {
  {
    std::lock_guard lock(mutex_);
    waiting_.push_back(Waiter{owner, memory, bytes, std::move(grant)});
  }
  Serve();
}

void Staging::Drop(const void* owner) {
  std::vector<Grant> dropped;
  {
    std::lock_guard lock(mutex_);
    std::erase_if(waiting_, [&](Waiter& waiter) {
      if (waiter.owner != owner) return false;
      dropped.push_back(std::move(waiter.grant));
      return true;
    });
  }
  for (Grant& grant : dropped) grant(nullptr);
  Serve();  // What was dropped may have been in the way of a smaller one.
}

void Staging::Retry() {
  {
    std::lock_guard lock(mutex_);
    retry_pending_ = false;
  }
  Serve();
}

void Staging::Close() {
  std::unordered_map<uint64_t, MemoryLedger::Hold> holds;
  {
    std::lock_guard lock(mutex_);
    closed_ = true;
    holds.swap(holds_);
  }
  holds.clear();
  Serve();
}

void Staging::Free(uint64_t id) {
  MemoryLedger::Hold hold;
  {
    std::lock_guard lock(mutex_);
    auto found = holds_.find(id);
    if (found == holds_.end()) return;  // Closed.
    hold = std::move(found->second);
    holds_.erase(found);
    used_ -= hold.bytes();
  }
  hold = MemoryLedger::Hold();
  Serve();
}

void Staging::Serve() {
  while (true) {
    Grant grant;
    ItemMemory* memory = nullptr;
    uint64_t id = 0;
    int64_t bytes = 0;
    {
      std::unique_lock lock(mutex_);
      if (waiting_.empty()) return;
      Waiter& first = waiting_.front();
      if (!closed_) {
        if (!holds_.empty() && used_ + first.bytes > budget_) return;
        absl::StatusOr<MemoryLedger::Hold> hold = ledger_->Take(MemoryOwner::kInTransfer, first.bytes);
        if (!hold.ok()) {
          if (!holds_.empty() || std::exchange(retry_pending_, true)) return;
          lock.unlock();
          return retry_later_();
        }
        id = next_id_++;
        memory = first.memory;
        bytes = first.bytes;
        used_ += bytes;
        holds_.emplace(id, *std::move(hold));
      }
      grant = std::move(first.grant);
      waiting_.pop_front();
    }
    grant(id == 0 ? nullptr : std::make_unique<Buffer>(shared_from_this(), id, memory, bytes));
  }
}

}  // namespace salamander::stream
