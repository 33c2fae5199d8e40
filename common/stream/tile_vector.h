// The lossless codec's loops a vector of elements at a time, written once over a small type of byte vectors. Included
// into files that are compiled for different instruction sets, hence everything has internal linkage.
//
// A Simd is, for vectors of kLanes bytes (32 or 64):
//   Bytes, Pair, Bits             a vector; two of them, `low` and `high`; a bit for each byte
//   Load, Store, Set              of any alignment; Set: every byte the same
//   Add, Sub, Min, Max, And       byte by byte, unsigned, wrapping
//   ShiftLeft, ShiftRight         by N bits, of 16-bit words
//   Select(mask, yes, no)         bit by bit
//   TopBits(x)                    0xFF for each byte whose top bit is set, else 0
//   Equal, Greater                compare bytes, unsigned
//   SplitWords, SplitLongs        the low and the high halves of the 16-bit or 32-bit words of a, then of b
//   ZipBytes, ZipWords            a0 b0 a1 b1 …, bytes or 16-bit words; in `low` what comes first
//   Compress(to, bits, count, x)  writes the `count` bytes of x whose bit is set, and nothing behind them
//   Expand(x, bits, count, from)  x with the next `count` bytes of `from` in place of those whose bit is set
#ifndef SALAMANDER_COMMON_STREAM_TILE_VECTOR_H_
#define SALAMANDER_COMMON_STREAM_TILE_VECTOR_H_

#include "common/stream/tile_kernels.h"
#include "common/stream/tile_scalar.h"

namespace salamander::stream {
namespace {

// The upper 16 bits of elements, taken apart. `low`: lowest bit of the exponent, mantissa. `high`: sign, upper 7 bits
// of the exponent. `lower` gets float32's lower halves, unless it is null. Inlined even where the compiler would not:
// called, it costs a third of the speed with AVX-512, as the halves then go through memory.
template <typename Simd, typename Element>
[[gnu::always_inline]] inline typename Simd::Pair LoadHalves(const std::byte* elements, uint8_t* lower) {
  constexpr size_t n = Simd::kLanes;
  if constexpr (Element::kLow == 0) {
    return Simd::SplitWords(Simd::Load(elements), Simd::Load(elements + n));
  } else {
    const typename Simd::Pair first = Simd::SplitLongs(Simd::Load(elements), Simd::Load(elements + n));
    const typename Simd::Pair second = Simd::SplitLongs(Simd::Load(elements + 2 * n), Simd::Load(elements + 3 * n));
    if (lower != nullptr) {
      Simd::Store(lower, first.low);
      Simd::Store(lower + n, second.low);
    }
    return Simd::SplitWords(first.high, second.high);
  }
}

template <typename Simd>
typename Simd::Bytes Exponents(const typename Simd::Pair& halves) {
  // high·2 + (low's top bit): that bit as 0 or −1, subtracted.
  return Simd::Sub(Simd::Add(halves.high, halves.high), Simd::TopBits(halves.low));
}

template <typename Simd, typename Element>
uint8_t VectorMaxExponent(const std::byte* elements, size_t n) {
  typename Simd::Bytes most = Simd::Set(0);
  size_t i = 0;
  for (; i + Simd::kLanes <= n; i += Simd::kLanes) {
    most = Simd::Max(most, Exponents<Simd>(LoadHalves<Simd, Element>(elements + i * Element::kBytes, nullptr)));
  }
  uint8_t lanes[Simd::kLanes];
  Simd::Store(lanes, most);
  uint8_t largest = ScalarMaxExponent<Element>(elements + i * Element::kBytes, n - i);
  for (uint8_t lane : lanes) largest = lane > largest ? lane : largest;
  return largest;
}

// One vector of elements to their codes, signs and mantissas; writes the escapes. False if those become too many.
template <typename Simd, typename Element>
bool EncodeVector(const std::byte* elements, typename Simd::Bytes max_exponent, size_t most_escapes, size_t at,
                  const TileParts& parts, size_t& escapes, typename Simd::Bytes& codes) {
  const typename Simd::Pair halves =
      LoadHalves<Simd, Element>(elements + at * Element::kBytes, parts.low + at * Element::kLow);
  Simd::Store(parts.sign_mantissa + at, Simd::Select(Simd::Set(0x80), halves.high, halves.low));
  const typename Simd::Bytes exponents = Exponents<Simd>(halves);
  const typename Simd::Bytes escape = Simd::Set(kEscapeCode);
  codes = Simd::Min(Simd::Sub(max_exponent, exponents), escape);
  const typename Simd::Bits escaped = Simd::Equal(codes, escape);
  if (escaped == 0) return true;
  const size_t count = __builtin_popcountll(escaped);
  if (escapes + count > most_escapes) return false;
  Simd::Compress(parts.escapes + escapes, escaped, count, exponents);
  escapes += count;
  return true;
}

template <typename Simd, typename Element>
size_t VectorEncode(const std::byte* elements, size_t n, uint8_t max_exponent, size_t most_escapes,
                    const TileParts& parts) {
  constexpr size_t kHalf = kTileGroup / 2 / Simd::kLanes;  // vectors of half a group
  const typename Simd::Bytes largest = Simd::Set(max_exponent);
  size_t escapes = 0, at = 0;
  for (; at + kTileGroup <= n; at += kTileGroup) {
    typename Simd::Bytes codes[2 * kHalf];
    for (size_t i = 0; i < 2 * kHalf; ++i) {
      if (!EncodeVector<Simd, Element>(elements, largest, most_escapes, at + i * Simd::kLanes, parts, escapes,
                                       codes[i])) {
        return kTooManyEscapes;
      }
    }
    for (size_t i = 0; i < kHalf; ++i) {
      // Codes are below 16, so that nothing crosses from byte to byte.
      const typename Simd::Bytes upper = Simd::template ShiftLeft<4>(codes[kHalf + i]);
      Simd::Store(parts.codes + at / 2 + i * Simd::kLanes, Simd::Add(codes[i], upper));
    }
  }
  const TileParts rest{parts.codes + at / 2, parts.sign_mantissa + at, parts.low + at * Element::kLow, parts.escapes};
  return ScalarEncode<Element>(elements + at * Element::kBytes, n - at, max_exponent, most_escapes, escapes, rest);
}

// The other way; false if the codes are not valid.
template <typename Simd, typename Element>
bool DecodeVector(const ConstTileParts& parts, typename Simd::Bytes codes, typename Simd::Bytes max_exponent,
                  size_t escapes, size_t at, size_t& used, std::byte* elements) {
  using Bytes = typename Simd::Bytes;
  const typename Simd::Bits escaped = Simd::Equal(codes, Simd::Set(kEscapeCode));
  if ((Simd::Greater(codes, max_exponent) & ~escaped) != 0) return false;
  Bytes exponents = Simd::Sub(max_exponent, codes);
  if (escaped != 0) {
    const size_t count = __builtin_popcountll(escaped);
    if (used + count > escapes) return false;
    exponents = Simd::Expand(exponents, escaped, count, parts.escapes + used);
    used += count;
  }
  const Bytes rest = Simd::Load(parts.sign_mantissa + at), sign = Simd::Set(0x80);
  // Exponent's lowest bit above the mantissa; the others below the sign. Shifts of 16 bits, cut to the bytes.
  const Bytes low = Simd::Select(sign, Simd::template ShiftLeft<7>(exponents), rest);
  const Bytes high = Simd::Select(sign, rest, Simd::template ShiftRight<1>(exponents));
  const typename Simd::Pair words = Simd::ZipBytes(low, high);
  constexpr size_t n = Simd::kLanes;
  std::byte* const out = elements + at * Element::kBytes;
  if constexpr (Element::kLow == 0) {
    Simd::Store(out, words.low);
    Simd::Store(out + n, words.high);
  } else {
    const typename Simd::Pair first = Simd::ZipWords(Simd::Load(parts.low + at * 2), words.low);
    const typename Simd::Pair second = Simd::ZipWords(Simd::Load(parts.low + at * 2 + n), words.high);
    Simd::Store(out, first.low);
    Simd::Store(out + n, first.high);
    Simd::Store(out + 2 * n, second.low);
    Simd::Store(out + 3 * n, second.high);
  }
  return true;
}

template <typename Simd, typename Element>
bool VectorDecode(const ConstTileParts& parts, size_t escapes, uint8_t max_exponent, size_t n, std::byte* elements) {
  constexpr size_t kHalf = kTileGroup / 2 / Simd::kLanes;
  const typename Simd::Bytes largest = Simd::Set(max_exponent), nibble = Simd::Set(15);
  size_t used = 0, at = 0;
  for (; at + kTileGroup <= n; at += kTileGroup) {
    typename Simd::Bytes codes[2 * kHalf];
    for (size_t i = 0; i < kHalf; ++i) {
      const typename Simd::Bytes pairs = Simd::Load(parts.codes + at / 2 + i * Simd::kLanes);
      codes[i] = Simd::And(pairs, nibble);
      codes[kHalf + i] = Simd::And(Simd::template ShiftRight<4>(pairs), nibble);
    }
    for (size_t i = 0; i < 2 * kHalf; ++i) {
      if (!DecodeVector<Simd, Element>(parts, codes[i], largest, escapes, at + i * Simd::kLanes, used, elements)) {
        return false;
      }
    }
  }
  const ConstTileParts rest{parts.codes + at / 2, parts.sign_mantissa + at, parts.low + at * Element::kLow,
                            parts.escapes};
  return ScalarDecode<Element>(rest, escapes, used, max_exponent, n - at, elements + at * Element::kBytes);
}

template <typename Simd, typename Element>
constexpr ElementKernels kVectorKernels{&VectorMaxExponent<Simd, Element>, &VectorEncode<Simd, Element>,
                                        &VectorDecode<Simd, Element>};

}  // namespace
}  // namespace salamander::stream

#endif  // SALAMANDER_COMMON_STREAM_TILE_VECTOR_H_
