#include "common/stream/item_table.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/log.h"

namespace salamander::stream {

std::string_view ItemStateName(ItemState state) {
  switch (state) {
    case ItemState::kMissing:
      return "missing";
    case ItemState::kReceiving:
      return "receiving";
    case ItemState::kVerified:
      break;
  }
  return "verified";
}

ItemTable::ItemTable(RequestId request, std::vector<ExpectedItem> items)
    : request_(request), items_(std::move(items)), states_(new std::atomic<ItemState>[items_.size()]) {
  std::sort(items_.begin(), items_.end(), [](const auto& a, const auto& b) { return a.id < b.id; });
  for (size_t i = 0; i < items_.size(); ++i) states_[i].store(ItemState::kMissing, std::memory_order_relaxed);
}

std::optional<size_t> ItemTable::Find(const ItemId& id) const {
  auto found = std::lower_bound(items_.begin(), items_.end(), id,
                                [](const ExpectedItem& item, const ItemId& wanted) { return item.id < wanted; });
  if (found == items_.end() || found->id != id) return std::nullopt;
  return found - items_.begin();
}

std::vector<ItemId> ItemTable::In(ItemState wanted, std::optional<int32_t> span) const {
  std::vector<ItemId> ids;
  for (size_t i = 0; i < items_.size(); ++i) {
    if (state(i) == wanted && (!span || items_[i].id.span == *span)) ids.push_back(items_[i].id);
  }
  return ids;
}

bool ItemTable::Transition(size_t index, ItemState from, ItemState to) {
  ItemState seen = from;
  if (!states_[index].compare_exchange_strong(seen, to, std::memory_order_acq_rel)) return false;
  if (to == ItemState::kVerified) verified_.fetch_add(1, std::memory_order_acq_rel);
  Log(LogLevel::kDebug, absl::StrCat("request ", IdToString(request_), ": ", ItemName(items_[index].id), ": ",
                                     std::string(ItemStateName(from)), " -> ", std::string(ItemStateName(to))));
  return true;
}

}  // namespace salamander::stream
