// The framing of the lossless codec: a table, then one block per tile (docs/stream_format.md).
#ifndef SALAMANDER_COMMON_STREAM_LOSSLESS_H_
#define SALAMANDER_COMMON_STREAM_LOSSLESS_H_

#include <cstddef>
#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/stream/item.h"
#include "common/stream/tile_kernels.h"

namespace salamander::stream {

int64_t MaxLosslessBytes(const ItemShape& shape, int64_t raw_bytes);

// As Encode and Decode of codec.h, with the kernels to use.
absl::StatusOr<int64_t> EncodeLossless(const TileKernels& kernels, const ItemShape& shape,
                                       absl::Span<const absl::Span<const std::byte>> runs, absl::Span<std::byte> into);
absl::Status DecodeLossless(const TileKernels& kernels, const ItemShape& shape, absl::Span<const std::byte> encoded,
                            absl::Span<const absl::Span<std::byte>> runs);

}  // namespace salamander::stream

#endif  // SALAMANDER_COMMON_STREAM_LOSSLESS_H_
