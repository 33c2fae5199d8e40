// Codecs of item payloads. Encoded form: per tile an independent block, found through a table in front, so that tiles
// can be decoded in parallel (docs/stream_format.md has the byte format).
//
// lossless: per tile the largest exponent, a 4-bit code (largest − exponent) per element, sign and mantissa as they
// are, and a bounded list of exponents for elements further down (escapes); a tile with more escapes is stored raw.
// Elements of float32 are split into a BF16 half, coded as above, and the low 16 bits as they are.
#ifndef SALAMANDER_COMMON_STREAM_CODEC_H_
#define SALAMANDER_COMMON_STREAM_CODEC_H_

#include <cstddef>
#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/stream/item.h"

namespace salamander::stream {

// Upper bound of what Encode returns for `raw_bytes` bytes in whole tiles (the last may be short).
int64_t MaxEncodedBytes(v1::Codec codec, const ItemShape& shape, int64_t raw_bytes);

// Writes the encoded form of the runs, taken as one sequence of tiles, to the front of `into`, which has room for
// MaxEncodedBytes, and returns its length. UNIMPLEMENTED for an unknown codec, INVALID_ARGUMENT for runs that do not
// divide into tiles.
absl::StatusOr<int64_t> Encode(v1::Codec codec, const ItemShape& shape,
                               absl::Span<const absl::Span<const std::byte>> runs, absl::Span<std::byte> into);

// Decodes into the runs. Any bytes at all are safe: DATA_LOSS if they are not a valid encoding of exactly that many
// bytes; the runs' contents are then undefined.
absl::Status Decode(v1::Codec codec, const ItemShape& shape, absl::Span<const std::byte> encoded,
                    absl::Span<const absl::Span<std::byte>> runs);

// XXH3-64.
uint64_t Checksum(absl::Span<const std::byte> bytes);

}  // namespace salamander::stream

#endif  // SALAMANDER_COMMON_STREAM_CODEC_H_
