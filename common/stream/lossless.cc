#include "common/stream/lossless.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"

namespace salamander::stream {
namespace {

enum BlockMode : uint8_t { kRaw = 0, kCoded = 1 };

// In front of every block, little-endian.
struct BlockHeader {
  uint8_t mode;
  uint8_t max_exponent;  // 0 when raw
  uint16_t zero;
  uint32_t escapes;  // 0 when raw
};
static_assert(sizeof(BlockHeader) == 8);

constexpr int64_t kEndBytes = sizeof(uint64_t);  // one entry of the table

// Beyond this many of n elements a tile is stored raw, so that no block is longer than its tile and a header.
constexpr size_t MostEscapes(size_t n) { return n / 4; }

int64_t ElementBytes(v1::ElementType type) { return type == v1::ELEMENT_TYPE_BFLOAT16 ? 2 : 4; }

const ElementKernels& KernelsOf(const TileKernels& kernels, v1::ElementType type) {
  return type == v1::ELEMENT_TYPE_BFLOAT16 ? kernels.bfloat16 : kernels.float32;
}

int64_t TileCount(const ItemShape& shape, int64_t raw_bytes) {
  return (raw_bytes + shape.tile_bytes - 1) / shape.tile_bytes;
}

// Bytes of a coded block's parts, escapes excepted.
struct Layout {
  Layout(v1::ElementType type, size_t n)
      : codes((n + 1) / 2), sign_mantissa(n), low(type == v1::ELEMENT_TYPE_FLOAT32 ? 2 * n : 0) {}
  size_t codes, sign_mantissa, low;
  size_t total() const { return codes + sign_mantissa + low; }
};

template <typename Byte>
absl::Status CheckShape(const ItemShape& shape, absl::Span<const absl::Span<Byte>> runs) {
  if (shape.type != v1::ELEMENT_TYPE_BFLOAT16 && shape.type != v1::ELEMENT_TYPE_FLOAT32) {
    return absl::InvalidArgumentError(absl::StrCat("element type ", static_cast<int>(shape.type), " is unknown"));
  }
  const int64_t element = ElementBytes(shape.type);
  if (shape.tile_bytes <= 0 || shape.tile_bytes % element != 0 ||
      shape.tile_bytes > std::numeric_limits<uint32_t>::max()) {
    return absl::InvalidArgumentError(
        absl::StrCat("tile_bytes must be a positive multiple of ", element, " below 4 GiB, got ", shape.tile_bytes));
  }
  size_t last = runs.size();  // The last that is not empty may end with a short tile.
  while (last > 0 && runs[last - 1].empty()) --last;
  for (size_t i = 0; i < last; ++i) {
    const int64_t unit = i + 1 < last ? shape.tile_bytes : element;
    if (runs[i].size() % unit != 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("run ", i, " must be a multiple of ", unit, " bytes, got ", runs[i].size()));
    }
  }
  return absl::OkStatus();
}

// Calls visit(tile bytes) for every tile of the runs in order, until it returns an error.
template <typename Byte, typename Visit>
absl::Status ForEachTile(const ItemShape& shape, absl::Span<const absl::Span<Byte>> runs, const Visit& visit) {
  for (const absl::Span<Byte>& run : runs) {
    for (size_t begin = 0; begin < run.size(); begin += shape.tile_bytes) {
      RETURN_IF_ERROR(visit(run.subspan(begin, shape.tile_bytes)));
    }
  }
  return absl::OkStatus();
}

// Writes the tile's block to `out` and returns its length.
size_t EncodeTile(const ElementKernels& kernels, v1::ElementType type, absl::Span<const std::byte> tile,
                  std::byte* out) {
  const size_t n = tile.size() / ElementBytes(type);
  const Layout layout(type, n);
  uint8_t* const body = reinterpret_cast<uint8_t*>(out + sizeof(BlockHeader));
  const TileParts parts{body, body + layout.codes, body + layout.codes + layout.sign_mantissa, body + layout.total()};
  const uint8_t max_exponent = kernels.max_exponent(tile.data(), n);
  const size_t escapes = kernels.encode(tile.data(), n, max_exponent, MostEscapes(n), parts);
  const bool raw = escapes == kTooManyEscapes;
  BlockHeader header{kCoded, max_exponent, 0, static_cast<uint32_t>(escapes)};
  if (raw) header = BlockHeader{kRaw, 0, 0, 0};
  std::memcpy(out, &header, sizeof(header));
  if (raw) std::memcpy(body, tile.data(), tile.size());
  return sizeof(header) + (raw ? tile.size() : layout.total() + escapes);
}

absl::Status DecodeTile(const ElementKernels& kernels, v1::ElementType type, absl::Span<const std::byte> block,
                        absl::Span<std::byte> tile) {
  BlockHeader header;
  if (block.size() < sizeof(header)) return absl::DataLossError("block shorter than its header");
  std::memcpy(&header, block.data(), sizeof(header));
  const size_t body_bytes = block.size() - sizeof(header);
  const uint8_t* const body = reinterpret_cast<const uint8_t*>(block.data() + sizeof(header));
  if (header.mode == kRaw) {
    if (body_bytes != tile.size() || header.max_exponent != 0 || header.zero != 0 || header.escapes != 0) {
      return absl::DataLossError(absl::StrCat("raw block of ", body_bytes, " bytes, expected ", tile.size()));
    }
    std::memcpy(tile.data(), body, body_bytes);
    return absl::OkStatus();
  }
  const size_t n = tile.size() / ElementBytes(type);
  const Layout layout(type, n);
  if (header.mode != kCoded || header.zero != 0 || header.escapes > MostEscapes(n) ||
      body_bytes != layout.total() + header.escapes) {
    return absl::DataLossError(absl::StrCat("block of mode ", static_cast<int>(header.mode), " with ", header.escapes,
                                            " escapes has ", body_bytes, " bytes, ", n, " elements"));
  }
  const ConstTileParts parts{body, body + layout.codes, body + layout.codes + layout.sign_mantissa,
                             body + layout.total()};
  if (!kernels.decode(parts, header.escapes, header.max_exponent, n, tile.data())) {
    return absl::DataLossError("codes and escapes do not go together");
  }
  return absl::OkStatus();
}

}  // namespace

int64_t MaxLosslessBytes(const ItemShape& shape, int64_t raw_bytes) {
  if (shape.tile_bytes <= 0) return raw_bytes;  // Encode refuses it.
  return raw_bytes + TileCount(shape, raw_bytes) * (kEndBytes + static_cast<int64_t>(sizeof(BlockHeader)));
}

absl::StatusOr<int64_t> EncodeLossless(const TileKernels& kernels, const ItemShape& shape,
                                       absl::Span<const absl::Span<const std::byte>> runs, absl::Span<std::byte> into) {
  RETURN_IF_ERROR(CheckShape(shape, runs));
  int64_t raw_bytes = 0;
  for (const auto& run : runs) raw_bytes += run.size();
  if (static_cast<int64_t>(into.size()) < MaxLosslessBytes(shape, raw_bytes)) {
    return absl::InvalidArgumentError(
        absl::StrCat("room for ", into.size(), " bytes, need ", MaxLosslessBytes(shape, raw_bytes)));
  }
  const int64_t table_bytes = TileCount(shape, raw_bytes) * kEndBytes;
  std::byte* table = into.data();
  std::byte* const blocks = into.data() + table_bytes;
  uint64_t end = 0;
  RETURN_IF_ERROR(ForEachTile(shape, runs, [&](absl::Span<const std::byte> tile) {
    end += EncodeTile(KernelsOf(kernels, shape.type), shape.type, tile, blocks + end);
    std::memcpy(table, &end, kEndBytes);
    table += kEndBytes;
    return absl::OkStatus();
  }));
  return table_bytes + static_cast<int64_t>(end);
}

absl::Status DecodeLossless(const TileKernels& kernels, const ItemShape& shape, absl::Span<const std::byte> encoded,
                            absl::Span<const absl::Span<std::byte>> runs) {
  RETURN_IF_ERROR(CheckShape(shape, runs));
  int64_t raw_bytes = 0;
  for (const auto& run : runs) raw_bytes += run.size();
  const uint64_t table_bytes = TileCount(shape, raw_bytes) * kEndBytes;
  if (encoded.size() < table_bytes) {
    return absl::DataLossError(absl::StrCat("table of ", table_bytes, " bytes in ", encoded.size()));
  }
  const absl::Span<const std::byte> blocks = encoded.subspan(table_bytes);
  const std::byte* table = encoded.data();
  uint64_t begin = 0;
  int64_t number = 0;
  RETURN_IF_ERROR(ForEachTile(shape, runs, [&](absl::Span<std::byte> tile) {
    uint64_t end;
    std::memcpy(&end, table, kEndBytes);
    table += kEndBytes;
    if (end < begin || end > blocks.size()) {
      return absl::DataLossError(
          absl::StrCat("tile ", number, ": block from ", begin, " to ", end, " of ", blocks.size(), " bytes"));
    }
    const absl::Status decoded =
        DecodeTile(KernelsOf(kernels, shape.type), shape.type, blocks.subspan(begin, end - begin), tile);
    begin = end;
    return Annotate(decoded, absl::StrCat("tile ", number++));
  }));
  if (begin != blocks.size()) {
    return absl::DataLossError(absl::StrCat(blocks.size() - begin, " bytes behind the last block"));
  }
  return absl::OkStatus();
}

}  // namespace salamander::stream
