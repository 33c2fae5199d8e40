// The lossless codec's loops for AVX-512 with VBMI and VBMI2, 128 elements at a time. Compiled with those instruction
// sets switched on: nothing here may be called, and no inline function of a header used, on other processors.
#include "common/stream/tile_kernels.h"

#if defined(__AVX512VBMI2__)

#include <immintrin.h>

#include "common/stream/tile_scalar.h"

namespace salamander::stream {
namespace {

// 64 elements' upper 16 bits, taken apart: a byte each.
struct Halves {
  __m512i low;   // lowest bit of the exponent, mantissa
  __m512i high;  // sign, upper 7 bits of the exponent
};

__m512i Load(const void* from) { return _mm512_loadu_si512(from); }
void Store(void* to, __m512i bytes) { _mm512_storeu_si512(to, bytes); }

// Bytes first, first + step, first + 2·step, … of a pair of registers.
__m512i EveryByte(int first, int step) {
  alignas(64) uint8_t index[64];
  for (int i = 0; i < 64; ++i) index[i] = static_cast<uint8_t>(first + i * step);
  return _mm512_load_si512(index);
}
__m512i EveryWord(int first, int step) {
  alignas(64) uint16_t index[32];
  for (int i = 0; i < 32; ++i) index[i] = static_cast<uint16_t>(first + i * step);
  return _mm512_load_si512(index);
}
// Byte 0 of the first register, byte 0 of the second, byte 1 of the first, … from byte `begin` on.
__m512i ZipBytes(int begin) {
  alignas(64) uint8_t index[64];
  for (int i = 0; i < 64; ++i) index[i] = static_cast<uint8_t>(begin + i / 2 + (i % 2) * 64);
  return _mm512_load_si512(index);
}
__m512i ZipWords(int begin) {
  alignas(64) uint16_t index[32];
  for (int i = 0; i < 32; ++i) index[i] = static_cast<uint16_t>(begin + i / 2 + (i % 2) * 32);
  return _mm512_load_si512(index);
}

Halves Split(__m512i first, __m512i second) {
  return {_mm512_permutex2var_epi8(first, EveryByte(0, 2), second),
          _mm512_permutex2var_epi8(first, EveryByte(1, 2), second)};
}

// 64 elements. `low` gets float32's lower halves.
template <typename Element>
Halves LoadHalves(const std::byte* elements, uint8_t* low) {
  if constexpr (Element::kLow == 0) {
    return Split(Load(elements), Load(elements + 64));
  } else {
    const __m512i a = Load(elements), b = Load(elements + 64), c = Load(elements + 128), d = Load(elements + 192);
    if (low != nullptr) {
      Store(low, _mm512_permutex2var_epi16(a, EveryWord(0, 2), b));
      Store(low + 64, _mm512_permutex2var_epi16(c, EveryWord(0, 2), d));
    }
    return Split(_mm512_permutex2var_epi16(a, EveryWord(1, 2), b), _mm512_permutex2var_epi16(c, EveryWord(1, 2), d));
  }
}

__m512i Exponents(const Halves& halves) {
  // high·2 + (low's top bit): that bit as 0 or −1, subtracted.
  const __m512i bit = _mm512_movm_epi8(_mm512_movepi8_mask(halves.low));
  return _mm512_sub_epi8(_mm512_add_epi8(halves.high, halves.high), bit);
}

constexpr int kSelect = 0xCA;  // ternary logic: a ? b : c, bit by bit
__m512i SignBit() { return _mm512_set1_epi8(static_cast<char>(0x80)); }

template <typename Element>
uint8_t MaxExponent(const std::byte* elements, size_t n) {
  __m512i most = _mm512_setzero_si512();
  size_t i = 0;
  for (; i + 64 <= n; i += 64) {
    most = _mm512_max_epu8(most, Exponents(LoadHalves<Element>(elements + i * Element::kBytes, nullptr)));
  }
  alignas(64) uint8_t lanes[64];
  _mm512_store_si512(lanes, most);
  uint8_t largest = ScalarMaxExponent<Element>(elements + i * Element::kBytes, n - i);
  for (uint8_t lane : lanes) largest = lane > largest ? lane : largest;
  return largest;
}

// 64 elements to their codes, signs and mantissas; writes the escapes. False if those become too many.
template <typename Element>
bool EncodeHalfGroup(const std::byte* elements, __m512i max_exponent, size_t most_escapes, size_t at,
                     const TileParts& parts, size_t& escapes, __m512i& codes) {
  const Halves halves = LoadHalves<Element>(elements + at * Element::kBytes, parts.low + at * Element::kLow);
  Store(parts.sign_mantissa + at, _mm512_ternarylogic_epi32(SignBit(), halves.high, halves.low, kSelect));
  const __m512i exponents = Exponents(halves);
  const __m512i escape = _mm512_set1_epi8(kEscapeCode);
  codes = _mm512_min_epu8(_mm512_sub_epi8(max_exponent, exponents), escape);
  const __mmask64 escaped = _mm512_cmpeq_epi8_mask(codes, escape);
  if (escaped == 0) return true;
  const size_t count = __builtin_popcountll(escaped);
  if (escapes + count > most_escapes) return false;
  // Compressing in the register and storing under a mask: storing while compressing is slow on some processors.
  _mm512_mask_storeu_epi8(parts.escapes + escapes, _bzhi_u64(~uint64_t{0}, count),
                          _mm512_maskz_compress_epi8(escaped, exponents));
  escapes += count;
  return true;
}

template <typename Element>
size_t Encode(const std::byte* elements, size_t n, uint8_t max_exponent, size_t most_escapes, const TileParts& parts) {
  const __m512i largest = _mm512_set1_epi8(static_cast<char>(max_exponent));
  size_t escapes = 0, at = 0;
  for (; at + kTileGroup <= n; at += kTileGroup) {
    __m512i first, second;
    if (!EncodeHalfGroup<Element>(elements, largest, most_escapes, at, parts, escapes, first) ||
        !EncodeHalfGroup<Element>(elements, largest, most_escapes, at + 64, parts, escapes, second)) {
      return kTooManyEscapes;
    }
    Store(parts.codes + at / 2, _mm512_or_si512(first, _mm512_slli_epi16(second, 4)));
  }
  const TileParts rest{parts.codes + at / 2, parts.sign_mantissa + at, parts.low + at * Element::kLow, parts.escapes};
  return ScalarEncode<Element>(elements + at * Element::kBytes, n - at, max_exponent, most_escapes, escapes, rest);
}

// The other way; false if the codes are not valid.
template <typename Element>
bool DecodeHalfGroup(const ConstTileParts& parts, __m512i codes, __m512i max_exponent, size_t escapes, size_t at,
                     size_t& used, std::byte* elements) {
  const __mmask64 escaped = _mm512_cmpeq_epi8_mask(codes, _mm512_set1_epi8(kEscapeCode));
  if ((_mm512_cmpgt_epu8_mask(codes, max_exponent) & ~escaped) != 0) return false;
  __m512i exponents = _mm512_sub_epi8(max_exponent, codes);
  if (escaped != 0) {
    const size_t count = __builtin_popcountll(escaped);
    if (used + count > escapes) return false;
    const __m512i next = _mm512_maskz_loadu_epi8(_bzhi_u64(~uint64_t{0}, count), parts.escapes + used);
    exponents = _mm512_mask_expand_epi8(exponents, escaped, next);
    used += count;
  }
  const __m512i rest = Load(parts.sign_mantissa + at);
  // Exponent's lowest bit above the mantissa; the others below the sign. Shifts of 16 bits, cut to the bytes.
  const __m512i low = _mm512_ternarylogic_epi32(SignBit(), _mm512_slli_epi16(exponents, 7), rest, kSelect);
  const __m512i high = _mm512_ternarylogic_epi32(SignBit(), rest, _mm512_srli_epi16(exponents, 1), kSelect);
  const __m512i first = _mm512_permutex2var_epi8(low, ZipBytes(0), high);
  const __m512i second = _mm512_permutex2var_epi8(low, ZipBytes(32), high);
  std::byte* const out = elements + at * Element::kBytes;
  if constexpr (Element::kLow == 0) {
    Store(out, first);
    Store(out + 64, second);
  } else {
    const __m512i low_first = Load(parts.low + at * 2), low_second = Load(parts.low + at * 2 + 64);
    Store(out, _mm512_permutex2var_epi16(low_first, ZipWords(0), first));
    Store(out + 64, _mm512_permutex2var_epi16(low_first, ZipWords(16), first));
    Store(out + 128, _mm512_permutex2var_epi16(low_second, ZipWords(0), second));
    Store(out + 192, _mm512_permutex2var_epi16(low_second, ZipWords(16), second));
  }
  return true;
}

template <typename Element>
bool Decode(const ConstTileParts& parts, size_t escapes, uint8_t max_exponent, size_t n, std::byte* elements) {
  const __m512i largest = _mm512_set1_epi8(static_cast<char>(max_exponent));
  const __m512i nibble = _mm512_set1_epi8(15);
  size_t used = 0, at = 0;
  for (; at + kTileGroup <= n; at += kTileGroup) {
    const __m512i pairs = Load(parts.codes + at / 2);
    const __m512i first = _mm512_and_si512(pairs, nibble);
    const __m512i second = _mm512_and_si512(_mm512_srli_epi16(pairs, 4), nibble);
    if (!DecodeHalfGroup<Element>(parts, first, largest, escapes, at, used, elements) ||
        !DecodeHalfGroup<Element>(parts, second, largest, escapes, at + 64, used, elements)) {
      return false;
    }
  }
  const ConstTileParts rest{parts.codes + at / 2, parts.sign_mantissa + at, parts.low + at * Element::kLow,
                            parts.escapes};
  return ScalarDecode<Element>(rest, escapes, used, max_exponent, n - at, elements + at * Element::kBytes);
}

template <typename Element>
constexpr ElementKernels kKernels{&MaxExponent<Element>, &Encode<Element>, &Decode<Element>};

}  // namespace

const TileKernels* Avx512TileKernels() {
  static constexpr TileKernels kernels{"avx512", kKernels<Bfloat16Element>, kKernels<Float32Element>};
  return &kernels;
}

}  // namespace salamander::stream

#else

namespace salamander::stream {

const TileKernels* Avx512TileKernels() { return nullptr; }

}  // namespace salamander::stream

#endif
