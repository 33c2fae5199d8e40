// The state of every item of one subscription.
//
//   missing ──a message is accepted──▶ receiving ──checksum and decode are right──▶ verified
//      ▲                                   │
//      └──────its link broke underway──────┘
#ifndef SALAMANDER_COMMON_STREAM_ITEM_TABLE_H_
#define SALAMANDER_COMMON_STREAM_ITEM_TABLE_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string_view>
#include <vector>

#include "common/base/ids.h"
#include "common/stream/item.h"

namespace salamander::stream {

enum class ItemState : uint8_t { kMissing, kReceiving, kVerified };
std::string_view ItemStateName(ItemState state);

// Any thread, without locks.
class ItemTable {
 public:
  // Ids are distinct.
  ItemTable(RequestId request, std::vector<ExpectedItem> items);

  size_t size() const { return items_.size(); }
  std::optional<size_t> Find(const ItemId& id) const;
  const ExpectedItem& item(size_t index) const { return items_[index]; }
  // Acquire: after kVerified the caller may read the item's bytes.
  ItemState state(size_t index) const { return states_[index].load(std::memory_order_acquire); }
  int64_t verified() const { return verified_.load(std::memory_order_acquire); }
  // Items in `state`, of one span if given.
  std::vector<ItemId> In(ItemState state, std::optional<int32_t> span = std::nullopt) const;

  // The one way to change a state; false, and nothing changes, if the item is not in `from`. Release: bytes written
  // before a transition to kVerified are seen by whoever sees it.
  bool Transition(size_t index, ItemState from, ItemState to);

 private:
  const RequestId request_;
  std::vector<ExpectedItem> items_;  // sorted by id
  std::unique_ptr<std::atomic<ItemState>[]> states_;
  std::atomic<int64_t> verified_{0};
};

}  // namespace salamander::stream

#endif  // SALAMANDER_COMMON_STREAM_ITEM_TABLE_H_
