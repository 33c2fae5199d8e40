// The lossless codec's loops for AVX-512 with VBMI and VBMI2. Compiled with those instruction sets switched on: nothing
// here may be called, and no inline function of a header used, on other processors.
#include "common/stream/tile_kernels.h"

#if defined(__AVX512VBMI2__)

#include <immintrin.h>

#include "common/stream/tile_vector.h"

namespace salamander::stream {
namespace {

struct Avx512 {
  static constexpr size_t kLanes = 64;
  using Bytes = __m512i;
  using Bits = uint64_t;
  struct Pair {
    Bytes low, high;
  };

  static Bytes Load(const void* from) { return _mm512_loadu_si512(from); }
  static void Store(void* to, Bytes x) { _mm512_storeu_si512(to, x); }
  static Bytes Set(uint8_t x) { return _mm512_set1_epi8(static_cast<char>(x)); }
  static Bytes Add(Bytes a, Bytes b) { return _mm512_add_epi8(a, b); }
  static Bytes Sub(Bytes a, Bytes b) { return _mm512_sub_epi8(a, b); }
  static Bytes Min(Bytes a, Bytes b) { return _mm512_min_epu8(a, b); }
  static Bytes Max(Bytes a, Bytes b) { return _mm512_max_epu8(a, b); }
  static Bytes And(Bytes a, Bytes b) { return _mm512_and_si512(a, b); }
  template <int N>
  static Bytes ShiftLeft(Bytes x) {
    return _mm512_slli_epi16(x, N);
  }
  template <int N>
  static Bytes ShiftRight(Bytes x) {
    return _mm512_srli_epi16(x, N);
  }
  static Bytes Select(Bytes mask, Bytes yes, Bytes no) {
    constexpr int kSelect = 0xCA;  // a ? b : c
    return _mm512_ternarylogic_epi32(mask, yes, no, kSelect);
  }
  static Bytes TopBits(Bytes x) { return _mm512_movm_epi8(_mm512_movepi8_mask(x)); }
  static Bits Equal(Bytes a, Bytes b) { return _mm512_cmpeq_epi8_mask(a, b); }
  static Bits Greater(Bytes a, Bytes b) { return _mm512_cmpgt_epu8_mask(a, b); }

  static Pair SplitWords(Bytes a, Bytes b) {
    return {_mm512_permutex2var_epi8(a, EveryOther<uint8_t>(0), b),
            _mm512_permutex2var_epi8(a, EveryOther<uint8_t>(1), b)};
  }
  static Pair SplitLongs(Bytes a, Bytes b) {
    return {_mm512_permutex2var_epi16(a, EveryOther<uint16_t>(0), b),
            _mm512_permutex2var_epi16(a, EveryOther<uint16_t>(1), b)};
  }
  static Pair ZipBytes(Bytes a, Bytes b) {
    return {_mm512_permutex2var_epi8(a, Zip<uint8_t>(0), b), _mm512_permutex2var_epi8(a, Zip<uint8_t>(32), b)};
  }
  static Pair ZipWords(Bytes a, Bytes b) {
    return {_mm512_permutex2var_epi16(a, Zip<uint16_t>(0), b), _mm512_permutex2var_epi16(a, Zip<uint16_t>(16), b)};
  }

  // Compressing in the register and storing under a mask: storing while compressing is slow on some processors.
  static void Compress(uint8_t* to, Bits bits, size_t count, Bytes x) {
    _mm512_mask_storeu_epi8(to, First(count), _mm512_maskz_compress_epi8(bits, x));
  }
  static Bytes Expand(Bytes x, Bits bits, size_t count, const uint8_t* from) {
    return _mm512_mask_expand_epi8(x, bits, _mm512_maskz_loadu_epi8(First(count), from));
  }

 private:
  static Bits First(size_t count) { return _bzhi_u64(~uint64_t{0}, count); }

  // Which elements of a pair of registers to take: first, first + 2, first + 4, …
  template <typename T>
  static Bytes EveryOther(int first) {
    constexpr int n = 64 / sizeof(T);
    alignas(64) T index[n];
    for (int i = 0; i < n; ++i) index[i] = static_cast<T>(first + 2 * i);
    return _mm512_load_si512(index);
  }
  // Element `begin` of the first register, the same of the second, the next of the first, …
  template <typename T>
  static Bytes Zip(int begin) {
    constexpr int n = 64 / sizeof(T);
    alignas(64) T index[n];
    for (int i = 0; i < n; ++i) index[i] = static_cast<T>(begin + i / 2 + (i % 2) * n);
    return _mm512_load_si512(index);
  }
};

}  // namespace

const TileKernels* Avx512TileKernels() {
  static constexpr TileKernels kernels{"avx512", kVectorKernels<Avx512, Bfloat16Element>,
                                       kVectorKernels<Avx512, Float32Element>};
  return &kernels;
}

}  // namespace salamander::stream

#else

namespace salamander::stream {

const TileKernels* Avx512TileKernels() { return nullptr; }

}  // namespace salamander::stream

#endif
