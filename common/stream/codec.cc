#include "common/stream/codec.h"

#include <xxhash.h>

#include <cstring>

#include "absl/strings/str_cat.h"
#include "common/stream/lossless.h"

namespace salamander::stream {
namespace {

template <typename Runs>
int64_t TotalBytes(const Runs& runs) {
  int64_t bytes = 0;
  for (const auto& run : runs) bytes += run.size();
  return bytes;
}

absl::Status UnknownCodec(v1::Codec codec) {
  return absl::UnimplementedError(absl::StrCat("codec ", static_cast<int>(codec), " is unknown"));
}

absl::StatusOr<int64_t> EncodeRaw(absl::Span<const absl::Span<const std::byte>> runs, absl::Span<std::byte> into) {
  const int64_t bytes = TotalBytes(runs);
  if (static_cast<int64_t>(into.size()) < bytes) {
    return absl::InvalidArgumentError(absl::StrCat("room for ", into.size(), " bytes, need ", bytes));
  }
  std::byte* out = into.data();
  for (const absl::Span<const std::byte>& run : runs) {
    if (run.empty()) continue;
    std::memcpy(out, run.data(), run.size());
    out += run.size();
  }
  return bytes;
}

absl::Status DecodeRaw(absl::Span<const std::byte> encoded, absl::Span<const absl::Span<std::byte>> runs) {
  const int64_t bytes = TotalBytes(runs);
  if (static_cast<int64_t>(encoded.size()) != bytes) {
    return absl::DataLossError(absl::StrCat("expected ", bytes, " raw bytes, got ", encoded.size()));
  }
  const std::byte* in = encoded.data();
  for (const absl::Span<std::byte>& run : runs) {
    if (run.empty()) continue;
    std::memcpy(run.data(), in, run.size());
    in += run.size();
  }
  return absl::OkStatus();
}

}  // namespace

int64_t MaxEncodedBytes(v1::Codec codec, const ItemShape& shape, int64_t raw_bytes) {
  return codec == v1::CODEC_LOSSLESS ? MaxLosslessBytes(shape, raw_bytes) : raw_bytes;
}

absl::StatusOr<int64_t> Encode(v1::Codec codec, const ItemShape& shape,
                               absl::Span<const absl::Span<const std::byte>> runs, absl::Span<std::byte> into) {
  switch (codec) {
    case v1::CODEC_RAW:
      return EncodeRaw(runs, into);
    case v1::CODEC_LOSSLESS:
      return EncodeLossless(*UsableTileKernels().front(), shape, runs, into);
    default:
      return UnknownCodec(codec);
  }
}

absl::Status Decode(v1::Codec codec, const ItemShape& shape, absl::Span<const std::byte> encoded,
                    absl::Span<const absl::Span<std::byte>> runs) {
  switch (codec) {
    case v1::CODEC_RAW:
      return DecodeRaw(encoded, runs);
    case v1::CODEC_LOSSLESS:
      return DecodeLossless(*UsableTileKernels().front(), shape, encoded, runs);
    default:
      return UnknownCodec(codec);
  }
}

uint64_t Checksum(absl::Span<const std::byte> bytes) { return XXH3_64bits(bytes.data(), bytes.size()); }

}  // namespace salamander::stream
