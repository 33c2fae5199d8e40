// The vector of 8 floats. Included by avx2.cc alone; see simd_avx512.h.
#ifndef SALAMANDER_KERNELS_CPU_SIMD_AVX2_H_
#define SALAMANDER_KERNELS_CPU_SIMD_AVX2_H_

#include <immintrin.h>

#include <cstdint>

namespace salamander::kernels {
namespace {

struct Avx2 {
  static constexpr int kLanes = 8;
  using Float = __m256;  // +, -, * and / work on it

  static Float Set(float x) { return _mm256_set1_ps(x); }
  static Float Load(const float* p) { return _mm256_loadu_ps(p); }
  static void Store(float* p, Float x) { _mm256_storeu_ps(p, x); }
  // The first `count` lanes; the others load as zero and are not stored.
  static Float LoadPart(const float* p, int count) { return _mm256_maskload_ps(p, FirstLanes(count)); }
  static void StorePart(float* p, Float x, int count) { _mm256_maskstore_ps(p, FirstLanes(count), x); }

  static Float Fma(Float a, Float b, Float c) { return _mm256_fmadd_ps(a, b, c); }
  // Of a NaN and a number, b.
  static Float Max(Float a, Float b) { return _mm256_max_ps(a, b); }
  static Float Min(Float a, Float b) { return _mm256_min_ps(a, b); }
  static Float Round(Float x) { return _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
  // What ScaleByPowerOf2 can take of finite numbers.
  static Float ClampExponent(Float x) { return Min(Set(128), Max(Set(-150), x)); }
  // x · 2^n for whole n in [-150, 128]; zero where 2^n would be denormal.
  static Float ScaleByPowerOf2(Float x, Float n) {
    const __m256i bits = _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23);
    const Float power = _mm256_castsi256_ps(bits);
    return x * _mm256_andnot_ps(_mm256_cmp_ps(n, Set(-126), _CMP_LT_OQ), power);
  }
  static float Sum(Float x) {
    __m128 sum = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    sum = _mm_add_ps(sum, _mm_movehl_ps(sum, sum));
    return _mm_cvtss_f32(_mm_add_ss(sum, _mm_movehdup_ps(sum)));
  }
  static float Highest(Float x) {
    __m128 top = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    top = _mm_max_ps(top, _mm_movehl_ps(top, top));
    return _mm_cvtss_f32(_mm_max_ss(top, _mm_movehdup_ps(top)));
  }
  // Per lane: a < b ? yes : no.
  static Float IfLess(Float a, Float b, Float yes, Float no) {
    return _mm256_blendv_ps(no, yes, _mm256_cmp_ps(a, b, _CMP_LT_OQ));
  }
  // Bit i: lane i of a is greater than that of b.
  static uint32_t GreaterBits(Float a, Float b) { return _mm256_movemask_ps(_mm256_cmp_ps(a, b, _CMP_GT_OQ)); }

  // a0 b0 a1 b1 … of the lower, and of the upper half of the lanes.
  static Float ZipLow(Float a, Float b) {
    return _mm256_permute2f128_ps(_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b), 0x20);
  }
  static Float ZipHigh(Float a, Float b) {
    return _mm256_permute2f128_ps(_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b), 0x31);
  }

 private:
  static __m256i FirstLanes(int count) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(count), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
  }
};

}  // namespace
}  // namespace salamander::kernels

#endif  // SALAMANDER_KERNELS_CPU_SIMD_AVX2_H_
