#include "common/stream/item.h"

#include "absl/strings/str_cat.h"

namespace salamander::stream {

std::string ItemName(const ItemId& id) {
  switch (id.kind) {
    case v1::ITEM_KIND_KEYS_VALUES:
      return absl::StrCat("keys-values of layer ", id.layer, ", span ", id.span);
    case v1::ITEM_KIND_STATE:
      return absl::StrCat("state of layer ", id.layer, ", span ", id.span);
    case v1::ITEM_KIND_HIDDEN:
      return absl::StrCat("hidden row of span ", id.span);
    default:
      return absl::StrCat("item of unknown kind ", static_cast<int>(id.kind), ", layer ", id.layer, ", span ", id.span);
  }
}

int64_t ItemSource::bytes() const {
  int64_t bytes = 0;
  for (const absl::Span<const std::byte>& run : runs) bytes += static_cast<int64_t>(run.size());
  return bytes;
}

}  // namespace salamander::stream
