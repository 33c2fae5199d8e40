// The lossless codec's loops for AVX2. Compiled with that instruction set switched on: nothing here may be called, and
// no inline function of a header used, on other processors.
#include "common/stream/tile_kernels.h"

#if defined(__AVX2__)

#include <immintrin.h>

#include "common/stream/tile_vector.h"

namespace salamander::stream {
namespace {

struct Avx2 {
  static constexpr size_t kLanes = 32;
  using Bytes = __m256i;
  using Bits = uint32_t;
  struct Pair {
    Bytes low, high;
  };

  static Bytes Load(const void* from) { return _mm256_loadu_si256(static_cast<const __m256i*>(from)); }
  static void Store(void* to, Bytes x) { _mm256_storeu_si256(static_cast<__m256i*>(to), x); }
  static Bytes Set(uint8_t x) { return _mm256_set1_epi8(static_cast<char>(x)); }
  static Bytes Add(Bytes a, Bytes b) { return _mm256_add_epi8(a, b); }
  static Bytes Sub(Bytes a, Bytes b) { return _mm256_sub_epi8(a, b); }
  static Bytes Min(Bytes a, Bytes b) { return _mm256_min_epu8(a, b); }
  static Bytes Max(Bytes a, Bytes b) { return _mm256_max_epu8(a, b); }
  static Bytes And(Bytes a, Bytes b) { return _mm256_and_si256(a, b); }
  template <int N>
  static Bytes ShiftLeft(Bytes x) {
    return _mm256_slli_epi16(x, N);
  }
  template <int N>
  static Bytes ShiftRight(Bytes x) {
    return _mm256_srli_epi16(x, N);
  }
  static Bytes Select(Bytes mask, Bytes yes, Bytes no) {
    return _mm256_or_si256(_mm256_and_si256(mask, yes), _mm256_andnot_si256(mask, no));
  }
  static Bytes TopBits(Bytes x) { return _mm256_cmpgt_epi8(_mm256_setzero_si256(), x); }
  static Bits Equal(Bytes a, Bytes b) { return _mm256_movemask_epi8(_mm256_cmpeq_epi8(a, b)); }
  static Bits Greater(Bytes a, Bytes b) { return ~Equal(Max(a, b), b); }

  static Pair SplitWords(Bytes a, Bytes b) {
    const Bytes mask = _mm256_set1_epi16(0xFF);
    return {InOrder(_mm256_packus_epi16(And(a, mask), And(b, mask))),
            InOrder(_mm256_packus_epi16(_mm256_srli_epi16(a, 8), _mm256_srli_epi16(b, 8)))};
  }
  static Pair SplitLongs(Bytes a, Bytes b) {
    const Bytes mask = _mm256_set1_epi32(0xFFFF);
    return {InOrder(_mm256_packus_epi32(And(a, mask), And(b, mask))),
            InOrder(_mm256_packus_epi32(_mm256_srli_epi32(a, 16), _mm256_srli_epi32(b, 16)))};
  }
  // Unpacking takes quarters 0 and 2, then 1 and 3.
  static Pair ZipBytes(Bytes a, Bytes b) {
    const Bytes x = InOrder(a), y = InOrder(b);
    return {_mm256_unpacklo_epi8(x, y), _mm256_unpackhi_epi8(x, y)};
  }
  static Pair ZipWords(Bytes a, Bytes b) {
    const Bytes x = InOrder(a), y = InOrder(b);
    return {_mm256_unpacklo_epi16(x, y), _mm256_unpackhi_epi16(x, y)};
  }

  static void Compress(uint8_t* to, Bits bits, size_t, Bytes x) {
    uint8_t lanes[kLanes];
    Store(lanes, x);
    for (; bits != 0; bits &= bits - 1) *to++ = lanes[__builtin_ctz(bits)];
  }
  static Bytes Expand(Bytes x, Bits bits, size_t, const uint8_t* from) {
    uint8_t lanes[kLanes];
    Store(lanes, x);
    for (; bits != 0; bits &= bits - 1) lanes[__builtin_ctz(bits)] = *from++;
    return Load(lanes);
  }

 private:
  // AVX2 packs and unpacks inside halves of registers; this puts the quarters 0 2 1 3 in order.
  static Bytes InOrder(Bytes x) { return _mm256_permute4x64_epi64(x, 0xD8); }
};

}  // namespace

const TileKernels* Avx2TileKernels() {
  static constexpr TileKernels kernels{"avx2", kVectorKernels<Avx2, Bfloat16Element>,
                                       kVectorKernels<Avx2, Float32Element>};
  return &kernels;
}

}  // namespace salamander::stream

#else

namespace salamander::stream {

const TileKernels* Avx2TileKernels() { return nullptr; }

}  // namespace salamander::stream

#endif
