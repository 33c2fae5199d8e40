// The lossless codec's loops one element at a time: the portable kernels, and what the vector kernels use for the end
// of a tile. Included into files that are compiled for different instruction sets, hence everything has internal
// linkage.
#ifndef SALAMANDER_COMMON_STREAM_TILE_SCALAR_H_
#define SALAMANDER_COMMON_STREAM_TILE_SCALAR_H_

#include <cstring>

#include "common/stream/tile_kernels.h"

namespace salamander::stream {
namespace {

// Bytes of an element, and of its low half, which is not coded.
struct Bfloat16Element {
  static constexpr size_t kBytes = 2, kLow = 0;
};
struct Float32Element {
  static constexpr size_t kBytes = 4, kLow = 2;
};

// The upper 16 bits: sign, exponent, 7 bits of mantissa.
template <typename Element>
uint16_t HighHalf(const std::byte* elements, size_t i) {
  uint16_t half;
  std::memcpy(&half, elements + i * Element::kBytes + Element::kLow, 2);
  return half;
}

template <typename Element>
[[maybe_unused]] uint8_t ScalarMaxExponent(const std::byte* elements, size_t n) {
  uint8_t most = 0;
  for (size_t i = 0; i < n; ++i) {
    const uint8_t exponent = static_cast<uint8_t>(HighHalf<Element>(elements, i) >> 7);
    if (exponent > most) most = exponent;
  }
  return most;
}

// From a group's begin to the tile's end. `escapes` are already there; returns as encode does.
template <typename Element>
[[maybe_unused]] size_t ScalarEncode(const std::byte* elements, size_t n, uint8_t max_exponent, size_t most_escapes,
                                     size_t escapes, TileParts parts) {
  for (size_t begin = 0; begin < n; begin += kTileGroup) {
    const size_t count = n - begin < kTileGroup ? n - begin : kTileGroup;
    const size_t half = (count + 1) / 2;
    for (size_t j = 0; j < count; ++j) {
      const uint16_t bits = HighHalf<Element>(elements, begin + j);
      const uint8_t exponent = static_cast<uint8_t>(bits >> 7);
      uint8_t code = max_exponent - exponent;
      if (code >= kEscapeCode) {
        if (escapes == most_escapes) return kTooManyEscapes;
        parts.escapes[escapes++] = exponent;
        code = kEscapeCode;
      }
      uint8_t& pair = parts.codes[begin / 2 + j % half];
      pair = j < half ? code : static_cast<uint8_t>(pair | code << 4);
      parts.sign_mantissa[begin + j] = static_cast<uint8_t>((bits >> 8 & 0x80) | (bits & 0x7F));
      if constexpr (Element::kLow > 0) std::memcpy(parts.low + (begin + j) * 2, elements + (begin + j) * 4, 2);
    }
  }
  return escapes;
}

// As ScalarEncode: `used` of the `escapes` belong to elements before. True if exactly all are used up.
template <typename Element>
[[maybe_unused]] bool ScalarDecode(const ConstTileParts& parts, size_t escapes, size_t used, uint8_t max_exponent,
                                   size_t n, std::byte* elements) {
  for (size_t begin = 0; begin < n; begin += kTileGroup) {
    const size_t count = n - begin < kTileGroup ? n - begin : kTileGroup;
    const size_t half = (count + 1) / 2;
    for (size_t j = 0; j < count; ++j) {
      const uint8_t pair = parts.codes[begin / 2 + j % half];
      const uint8_t code = j < half ? pair & 15 : pair >> 4;
      uint8_t exponent = max_exponent - code;
      if (code == kEscapeCode) {
        if (used == escapes) return false;
        exponent = parts.escapes[used++];
      } else if (code > max_exponent) {
        return false;
      }
      const uint8_t rest = parts.sign_mantissa[begin + j];
      const uint16_t bits = static_cast<uint16_t>((rest & 0x80) << 8 | exponent << 7 | (rest & 0x7F));
      std::byte* element = elements + (begin + j) * Element::kBytes;
      if constexpr (Element::kLow > 0) std::memcpy(element, parts.low + (begin + j) * 2, 2);
      std::memcpy(element + Element::kLow, &bits, 2);
    }
  }
  return used == escapes;
}

}  // namespace
}  // namespace salamander::stream

#endif  // SALAMANDER_COMMON_STREAM_TILE_SCALAR_H_
