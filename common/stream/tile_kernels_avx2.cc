// The lossless codec's loops for AVX2, 128 elements at a time. Compiled with that instruction set switched on: nothing
// here may be called, and no inline function of a header used, on other processors.
#include "common/stream/tile_kernels.h"

#if defined(__AVX2__)

#include <immintrin.h>

#include "common/stream/tile_scalar.h"

namespace salamander::stream {
namespace {

// 32 elements' upper 16 bits, taken apart: a byte each.
struct Halves {
  __m256i low;   // lowest bit of the exponent, mantissa
  __m256i high;  // sign, upper 7 bits of the exponent
};

__m256i Load(const void* from) { return _mm256_loadu_si256(static_cast<const __m256i*>(from)); }
void Store(void* to, __m256i bytes) { _mm256_storeu_si256(static_cast<__m256i*>(to), bytes); }

// AVX2 packs inside halves of registers; this puts the quarters back in order.
__m256i InOrder(__m256i packed) { return _mm256_permute4x64_epi64(packed, 0xD8); }

Halves Split(__m256i first, __m256i second) {
  const __m256i mask = _mm256_set1_epi16(0xFF);
  return {InOrder(_mm256_packus_epi16(_mm256_and_si256(first, mask), _mm256_and_si256(second, mask))),
          InOrder(_mm256_packus_epi16(_mm256_srli_epi16(first, 8), _mm256_srli_epi16(second, 8)))};
}

__m256i LowWords(__m256i a, __m256i b) {
  const __m256i mask = _mm256_set1_epi32(0xFFFF);
  return InOrder(_mm256_packus_epi32(_mm256_and_si256(a, mask), _mm256_and_si256(b, mask)));
}
__m256i HighWords(__m256i a, __m256i b) {
  return InOrder(_mm256_packus_epi32(_mm256_srli_epi32(a, 16), _mm256_srli_epi32(b, 16)));
}

// 32 elements. `low` gets float32's lower halves.
template <typename Element>
Halves LoadHalves(const std::byte* elements, uint8_t* low) {
  if constexpr (Element::kLow == 0) {
    return Split(Load(elements), Load(elements + 32));
  } else {
    const __m256i a = Load(elements), b = Load(elements + 32), c = Load(elements + 64), d = Load(elements + 96);
    if (low != nullptr) {
      Store(low, LowWords(a, b));
      Store(low + 32, LowWords(c, d));
    }
    return Split(HighWords(a, b), HighWords(c, d));
  }
}

__m256i Exponents(const Halves& halves) {
  // high·2 + (low's top bit): that bit as 0 or −1, subtracted.
  const __m256i bit = _mm256_cmpgt_epi8(_mm256_setzero_si256(), halves.low);
  return _mm256_sub_epi8(_mm256_add_epi8(halves.high, halves.high), bit);
}

__m256i SignBit() { return _mm256_set1_epi8(static_cast<char>(0x80)); }

template <typename Element>
uint8_t MaxExponent(const std::byte* elements, size_t n) {
  __m256i most = _mm256_setzero_si256();
  size_t i = 0;
  for (; i + 32 <= n; i += 32) {
    most = _mm256_max_epu8(most, Exponents(LoadHalves<Element>(elements + i * Element::kBytes, nullptr)));
  }
  alignas(32) uint8_t lanes[32];
  _mm256_store_si256(reinterpret_cast<__m256i*>(lanes), most);
  uint8_t largest = ScalarMaxExponent<Element>(elements + i * Element::kBytes, n - i);
  for (uint8_t lane : lanes) largest = lane > largest ? lane : largest;
  return largest;
}

// 32 elements to their codes, signs and mantissas; writes the escapes. False if those become too many.
template <typename Element>
bool EncodeQuarterGroup(const std::byte* elements, __m256i max_exponent, size_t most_escapes, size_t at,
                        const TileParts& parts, size_t& escapes, __m256i& codes) {
  const Halves halves = LoadHalves<Element>(elements + at * Element::kBytes, parts.low + at * Element::kLow);
  Store(parts.sign_mantissa + at, _mm256_blendv_epi8(_mm256_andnot_si256(SignBit(), halves.low),
                                                     _mm256_or_si256(SignBit(), halves.low), halves.high));
  const __m256i exponents = Exponents(halves);
  const __m256i escape = _mm256_set1_epi8(kEscapeCode);
  codes = _mm256_min_epu8(_mm256_sub_epi8(max_exponent, exponents), escape);
  uint32_t escaped = _mm256_movemask_epi8(_mm256_cmpeq_epi8(codes, escape));
  if (escaped == 0) return true;
  if (escapes + __builtin_popcount(escaped) > most_escapes) return false;
  alignas(32) uint8_t lanes[32];
  _mm256_store_si256(reinterpret_cast<__m256i*>(lanes), exponents);
  for (; escaped != 0; escaped &= escaped - 1) parts.escapes[escapes++] = lanes[__builtin_ctz(escaped)];
  return true;
}

template <typename Element>
size_t Encode(const std::byte* elements, size_t n, uint8_t max_exponent, size_t most_escapes, const TileParts& parts) {
  const __m256i largest = _mm256_set1_epi8(static_cast<char>(max_exponent));
  size_t escapes = 0, at = 0;
  for (; at + kTileGroup <= n; at += kTileGroup) {
    __m256i codes[4];
    for (size_t quarter = 0; quarter < 4; ++quarter) {
      if (!EncodeQuarterGroup<Element>(elements, largest, most_escapes, at + quarter * 32, parts, escapes,
                                       codes[quarter])) {
        return kTooManyEscapes;
      }
    }
    Store(parts.codes + at / 2, _mm256_or_si256(codes[0], _mm256_slli_epi16(codes[2], 4)));
    Store(parts.codes + at / 2 + 32, _mm256_or_si256(codes[1], _mm256_slli_epi16(codes[3], 4)));
  }
  const TileParts rest{parts.codes + at / 2, parts.sign_mantissa + at, parts.low + at * Element::kLow, parts.escapes};
  return ScalarEncode<Element>(elements + at * Element::kBytes, n - at, max_exponent, most_escapes, escapes, rest);
}

// The other way; false if the codes are not valid.
template <typename Element>
bool DecodeQuarterGroup(const ConstTileParts& parts, __m256i codes, __m256i max_exponent, size_t escapes, size_t at,
                        size_t& used, std::byte* elements) {
  const __m256i is_escape = _mm256_cmpeq_epi8(codes, _mm256_set1_epi8(kEscapeCode));
  const __m256i reachable = _mm256_cmpeq_epi8(_mm256_max_epu8(codes, max_exponent), max_exponent);
  if (_mm256_movemask_epi8(_mm256_or_si256(is_escape, reachable)) != -1) return false;
  __m256i exponents = _mm256_sub_epi8(max_exponent, codes);
  uint32_t escaped = _mm256_movemask_epi8(is_escape);
  if (escaped != 0) {
    if (used + __builtin_popcount(escaped) > escapes) return false;
    alignas(32) uint8_t lanes[32];
    _mm256_store_si256(reinterpret_cast<__m256i*>(lanes), exponents);
    for (; escaped != 0; escaped &= escaped - 1) lanes[__builtin_ctz(escaped)] = parts.escapes[used++];
    exponents = _mm256_load_si256(reinterpret_cast<const __m256i*>(lanes));
  }
  const __m256i rest = Load(parts.sign_mantissa + at), sign = SignBit();
  // Exponent's lowest bit above the mantissa; the others below the sign. Shifts of 16 bits, cut to the bytes.
  const __m256i low =
      _mm256_or_si256(_mm256_and_si256(sign, _mm256_slli_epi16(exponents, 7)), _mm256_andnot_si256(sign, rest));
  const __m256i high =
      _mm256_or_si256(_mm256_and_si256(sign, rest), _mm256_andnot_si256(sign, _mm256_srli_epi16(exponents, 1)));
  // Unpacking takes quarters 0 and 2, then 1 and 3.
  const __m256i low_zip = InOrder(low), high_zip = InOrder(high);
  const __m256i first = _mm256_unpacklo_epi8(low_zip, high_zip), second = _mm256_unpackhi_epi8(low_zip, high_zip);
  std::byte* const out = elements + at * Element::kBytes;
  if constexpr (Element::kLow == 0) {
    Store(out, first);
    Store(out + 32, second);
  } else {
    const __m256i words[2] = {InOrder(first), InOrder(second)};
    for (int i = 0; i < 2; ++i) {
      const __m256i lower = InOrder(Load(parts.low + at * 2 + i * 32));
      Store(out + i * 64, _mm256_unpacklo_epi16(lower, words[i]));
      Store(out + i * 64 + 32, _mm256_unpackhi_epi16(lower, words[i]));
    }
  }
  return true;
}

template <typename Element>
bool Decode(const ConstTileParts& parts, size_t escapes, uint8_t max_exponent, size_t n, std::byte* elements) {
  const __m256i largest = _mm256_set1_epi8(static_cast<char>(max_exponent));
  const __m256i nibble = _mm256_set1_epi8(15);
  size_t used = 0, at = 0;
  for (; at + kTileGroup <= n; at += kTileGroup) {
    const __m256i a = Load(parts.codes + at / 2), b = Load(parts.codes + at / 2 + 32);
    const __m256i codes[4] = {_mm256_and_si256(a, nibble), _mm256_and_si256(b, nibble),
                              _mm256_and_si256(_mm256_srli_epi16(a, 4), nibble),
                              _mm256_and_si256(_mm256_srli_epi16(b, 4), nibble)};
    for (size_t quarter = 0; quarter < 4; ++quarter) {
      if (!DecodeQuarterGroup<Element>(parts, codes[quarter], largest, escapes, at + quarter * 32, used, elements)) {
        return false;
      }
    }
  }
  const ConstTileParts rest{parts.codes + at / 2, parts.sign_mantissa + at, parts.low + at * Element::kLow,
                            parts.escapes};
  return ScalarDecode<Element>(rest, escapes, used, max_exponent, n - at, elements + at * Element::kBytes);
}

template <typename Element>
constexpr ElementKernels kKernels{&MaxExponent<Element>, &Encode<Element>, &Decode<Element>};

}  // namespace

const TileKernels* Avx2TileKernels() {
  static constexpr TileKernels kernels{"avx2", kKernels<Bfloat16Element>, kKernels<Float32Element>};
  return &kernels;
}

}  // namespace salamander::stream

#else

namespace salamander::stream {

const TileKernels* Avx2TileKernels() { return nullptr; }

}  // namespace salamander::stream

#endif
