// The one account of a worker's memory: capacity, and who holds how much of it. Always adds up: what is held by all
// owners and what is free sum to the capacity, at every moment.
//
//   MemoryLedger ledger(16 << 30);
//   ASSIGN_OR_RETURN(MemoryLedger::Hold hold, ledger.Take(MemoryOwner::kPages, bytes));   // freed with `hold`
//
// It counts; it does not allocate. Any thread.
#ifndef SALAMANDER_COMMON_BASE_MEMORY_LEDGER_H_
#define SALAMANDER_COMMON_BASE_MEMORY_LEDGER_H_

#include <array>
#include <cstdint>
#include <mutex>
#include <string_view>

#include "absl/status/statusor.h"

namespace salamander {

enum class MemoryOwner {
  kWeights,
  kWorkspace,   // activations and scratch, sized at start
  kPages,       // keys, values and tiers of requests
  kStates,      // lightning states of requests
  kInTransfer,  // encoded items being sent or received
};
inline constexpr int kMemoryOwners = 5;

// "weights", "workspace", "pages", "states", "in_transfer".
std::string_view MemoryOwnerName(MemoryOwner owner);

class MemoryLedger {
 public:
  // Gives its bytes back when destroyed. Must not outlive the ledger.
  class Hold {
   public:
    Hold() = default;
    Hold(Hold&& other) noexcept;
    Hold& operator=(Hold&& other) noexcept;
    ~Hold();
    int64_t bytes() const { return bytes_; }

   private:
    friend class MemoryLedger;
    Hold(MemoryLedger* ledger, MemoryOwner owner, int64_t bytes) : ledger_(ledger), owner_(owner), bytes_(bytes) {}
    MemoryLedger* ledger_ = nullptr;
    MemoryOwner owner_ = MemoryOwner::kWeights;
    int64_t bytes_ = 0;
  };

  struct Snapshot {
    int64_t capacity = 0;
    int64_t free = 0;
    std::array<int64_t, kMemoryOwners> held{};
    bool operator==(const Snapshot&) const = default;
  };

  explicit MemoryLedger(int64_t capacity_bytes);

  // RESOURCE_EXHAUSTED, naming owner, asked and free bytes, when they do not fit.
  absl::StatusOr<Hold> Take(MemoryOwner owner, int64_t bytes);
  // Consistent: one moment's numbers.
  Snapshot Read() const;

 private:
  void Give(MemoryOwner owner, int64_t bytes);

  mutable std::mutex mutex_;
  Snapshot now_;
};

}  // namespace salamander

#endif  // SALAMANDER_COMMON_BASE_MEMORY_LEDGER_H_
