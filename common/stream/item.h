// Items of a state stream: the unit that is published, verified and counted.
#ifndef SALAMANDER_COMMON_STREAM_ITEM_H_
#define SALAMANDER_COMMON_STREAM_ITEM_H_

#include <compare>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "common/stream/item_memory.h"
#include "salamander/v1/stream.pb.h"

namespace salamander::stream {

// Version of stream.proto and of the codecs' formats; peers must have the same.
inline constexpr int kStreamVersion = 2;

// Of the secret that a receiver makes for each subscription, and that every item for it carries.
inline constexpr size_t kStreamSecretBytes = 16;

struct ItemId {
  v1::ItemKind kind = v1::ITEM_KIND_UNSPECIFIED;
  int32_t layer = 0;
  int32_t span = 0;
  auto operator<=>(const ItemId&) const = default;
};
// "keys-values of layer 3, span 7".
std::string ItemName(const ItemId& id);

// How the bytes of an item divide: elements of one type, in tiles that codecs treat one by one.
struct ItemShape {
  v1::ElementType type = v1::ELEMENT_TYPE_FLOAT32;
  int64_t tile_bytes = 0;
};

// An item a receiver waits for, and the memory its decoded bytes go to: the runs, one after the other, are the item.
// A run is a whole number of tiles, but for an item smaller than one tile.
struct ExpectedItem {
  ItemId id;
  ItemShape shape;
  std::vector<absl::Span<std::byte>> into;
  ItemMemory* memory = nullptr;  // that `into` lies in; null: the host's
};

// An item that is there, or will be once `ready` returns.
struct ItemSource {
  std::vector<absl::Span<const std::byte>> runs;
  ItemMemory* memory = nullptr;         // that the runs lie in; null: the host's
  std::function<absl::Status()> ready;  // blocks until the runs are written; empty: they are

  int64_t bytes() const;
};

}  // namespace salamander::stream

#endif  // SALAMANDER_COMMON_STREAM_ITEM_H_
