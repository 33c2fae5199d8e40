// The vector of 16 floats. Included by avx512.cc alone: the type has internal linkage, so that nothing instantiated
// with it, and compiled for this instruction set, is ever taken by the linker for another file's code.
#ifndef SALAMANDER_KERNELS_CPU_SIMD_AVX512_H_
#define SALAMANDER_KERNELS_CPU_SIMD_AVX512_H_

#include <immintrin.h>

#include <cstdint>

namespace salamander::kernels {
namespace {

struct Avx512 {
  static constexpr int kLanes = 16;
  using Float = __m512;  // +, -, * and / work on it

  static Float Set(float x) { return _mm512_set1_ps(x); }
  static Float Load(const float* p) { return _mm512_loadu_ps(p); }
  static void Store(float* p, Float x) { _mm512_storeu_ps(p, x); }
  // The first `count` lanes; the others load as zero and are not stored.
  static Float LoadPart(const float* p, int count) { return _mm512_maskz_loadu_ps((1u << count) - 1, p); }
  static void StorePart(float* p, Float x, int count) { _mm512_mask_storeu_ps(p, (1u << count) - 1, x); }

  static Float Fma(Float a, Float b, Float c) { return _mm512_fmadd_ps(a, b, c); }
  // Of a NaN and a number, b.
  static Float Max(Float a, Float b) { return _mm512_max_ps(a, b); }
  static Float Min(Float a, Float b) { return _mm512_min_ps(a, b); }
  static Float Round(Float x) { return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
  // What ScaleByPowerOf2 can take of finite numbers: everything.
  static Float ClampExponent(Float x) { return x; }
  // x · 2^n for whole n.
  static Float ScaleByPowerOf2(Float x, Float n) { return _mm512_scalef_ps(x, n); }
  static float Sum(Float x) { return _mm512_reduce_add_ps(x); }
  static float Highest(Float x) { return _mm512_reduce_max_ps(x); }
  // Per lane: a < b ? yes : no.
  static Float IfLess(Float a, Float b, Float yes, Float no) {
    return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, b, _CMP_LT_OQ), no, yes);
  }
  // Bit i: lane i of a is greater than that of b.
  static uint32_t GreaterBits(Float a, Float b) { return _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ); }

  // a0 b0 a1 b1 … of the lower, and of the upper half of the lanes.
  static Float ZipLow(Float a, Float b) {
    const __m512i from = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    return _mm512_permutex2var_ps(a, from, b);
  }
  static Float ZipHigh(Float a, Float b) {
    const __m512i from = _mm512_setr_epi32(8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
    return _mm512_permutex2var_ps(a, from, b);
  }
};

}  // namespace
}  // namespace salamander::kernels

#endif  // SALAMANDER_KERNELS_CPU_SIMD_AVX512_H_
