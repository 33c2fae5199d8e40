// Memory that encoded items are received into, before they are verified: a budget of its own, taken piece by piece
// from the process's ledger, with a first-come queue of those that wait for a piece.
#ifndef SALAMANDER_COMMON_STREAM_STAGING_H_
#define SALAMANDER_COMMON_STREAM_STAGING_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <unordered_map>

#include "absl/types/span.h"
#include "common/base/memory_ledger.h"
#include "common/stream/item_memory.h"

namespace salamander::stream {

// Any thread. Callbacks run with no lock held, on the thread that asks or the one that frees.
class Staging : public std::enable_shared_from_this<Staging> {
 public:
  // A piece. Freed, which may serve the next in the queue, with the object.
  class Buffer {
   public:
    Buffer(std::shared_ptr<Staging> staging, uint64_t id, ItemMemory* memory, int64_t bytes);
    ~Buffer();
    Buffer(const Buffer&) = delete;
    Buffer& operator=(const Buffer&) = delete;
    absl::Span<std::byte> bytes() { return absl::MakeSpan(memory_.get(), bytes_); }

   private:
    const std::shared_ptr<Staging> staging_;
    const uint64_t id_;
    const int64_t bytes_;
    HostBuffer memory_;
  };
  // Gets the piece, or null if Drop or Close came first.
  using Grant = std::function<void(std::unique_ptr<Buffer>)>;

  // `retry_later` is called when the ledger has no room and no piece is out whose end would be noticed; somebody must
  // then call Retry a little later.
  Staging(int64_t budget_bytes, MemoryLedger* ledger, std::function<void()> retry_later);

  // Grants now or, in order of asking, when there is room. A piece larger than the budget is granted alone.
  // `owner` is a key for Drop; `memory`, which items in the piece are for, outlives the piece.
  void Ask(const void* owner, ItemMemory* memory, int64_t bytes, Grant grant);
  // Grants null to all that wait with this key.
  void Drop(const void* owner);
  void Retry();
  // Grants null to all that wait and to all that will ask, and gives everything back to the ledger, although pieces
  // may be out still: they belong to a transport that will never finish. The ledger is not used afterwards.
  void Close();

 private:
  struct Waiter {
    const void* owner;
    ItemMemory* memory;
    int64_t bytes;
    Grant grant;
  };
  void Free(uint64_t id);
  void Serve();

  std::mutex mutex_;
  const int64_t budget_;
  MemoryLedger* const ledger_;
  std::function<void()> retry_later_;
  bool closed_ = false;
  bool retry_pending_ = false;
  uint64_t next_id_ = 1;
  int64_t used_ = 0;
  std::unordered_map<uint64_t, MemoryLedger::Hold> holds_;  // by piece
  std::deque<Waiter> waiting_;
};

}  // namespace salamander::stream

#endif  // SALAMANDER_COMMON_STREAM_STAGING_H_
