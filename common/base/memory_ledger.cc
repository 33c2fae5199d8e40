#include "common/base/memory_ledger.h"

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"

namespace salamander {

std::string_view MemoryOwnerName(MemoryOwner owner) {
  switch (owner) {
    case MemoryOwner::kWeights:
      return "weights";
    case MemoryOwner::kWorkspace:
      return "workspace";
    case MemoryOwner::kPages:
      return "pages";
    case MemoryOwner::kStates:
      return "states";
    case MemoryOwner::kInTransfer:
      break;
  }
  return "in_transfer";
}

MemoryLedger::Hold::Hold(Hold&& other) noexcept { *this = std::move(other); }

MemoryLedger::Hold& MemoryLedger::Hold::operator=(Hold&& other) noexcept {
  if (this == &other) return *this;
  if (ledger_ != nullptr) ledger_->Give(owner_, bytes_);
  ledger_ = std::exchange(other.ledger_, nullptr);
  owner_ = other.owner_;
  bytes_ = std::exchange(other.bytes_, 0);
  return *this;
}

MemoryLedger::Hold::~Hold() {
  if (ledger_ != nullptr) ledger_->Give(owner_, bytes_);
}

MemoryLedger::MemoryLedger(int64_t capacity_bytes) {
  now_.capacity = capacity_bytes;
  now_.free = capacity_bytes;
}

absl::StatusOr<MemoryLedger::Hold> MemoryLedger::Take(MemoryOwner owner, int64_t bytes) {
  std::lock_guard lock(mutex_);
  if (bytes < 0 || bytes > now_.free) {
    return absl::ResourceExhaustedError(absl::StrCat("memory for ", std::string(MemoryOwnerName(owner)), ": asked ",
                                                     bytes, " bytes, free ", now_.free, " of ", now_.capacity));
  }
  now_.free -= bytes;
  now_.held[static_cast<int>(owner)] += bytes;
  return Hold(this, owner, bytes);
}

MemoryLedger::Snapshot MemoryLedger::Read() const {
  std::lock_guard lock(mutex_);
  return now_;
}

void MemoryLedger::Give(MemoryOwner owner, int64_t bytes) {
  std::lock_guard lock(mutex_);
  now_.free += bytes;
  now_.held[static_cast<int>(owner)] -= bytes;
}

}  // namespace salamander
