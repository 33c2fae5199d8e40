// A vector of 4 floats in the compilers' own vector extension, for any processor. Included by portable.cc alone; see
// simd_avx512.h.
#ifndef SALAMANDER_KERNELS_CPU_SIMD_PORTABLE_H_
#define SALAMANDER_KERNELS_CPU_SIMD_PORTABLE_H_

#include <cstdint>

namespace salamander::kernels {
namespace {

struct Portable {
  static constexpr int kLanes = 4;
  typedef float Float __attribute__((vector_size(16)));
  typedef int32_t Int __attribute__((vector_size(16)));

  static Float Set(float x) { return Float{x, x, x, x}; }
  static Float Load(const float* p) { return Float{p[0], p[1], p[2], p[3]}; }
  static void Store(float* p, Float x) {
    for (int i = 0; i < kLanes; ++i) p[i] = x[i];
  }
  // The first `count` lanes; the others load as zero and are not stored.
  static Float LoadPart(const float* p, int count) {
    Float x = Set(0);
    for (int i = 0; i < count; ++i) x[i] = p[i];
    return x;
  }
  static void StorePart(float* p, Float x, int count) {
    for (int i = 0; i < count; ++i) p[i] = x[i];
  }

  static Float Fma(Float a, Float b, Float c) { return a * b + c; }
  // Of a NaN and a number, b.
  static Float Max(Float a, Float b) { return Select(a > b, a, b); }
  static Float Min(Float a, Float b) { return Select(a < b, a, b); }
  // To the nearest, for |x| < 2^22: adding 1.5 · 2^23 leaves no bits for the fraction.
  static Float Round(Float x) { return (x + Set(12582912.0f)) - Set(12582912.0f); }
  // What ScaleByPowerOf2 can take of finite numbers.
  static Float ClampExponent(Float x) { return Min(Set(128), Max(Set(-150), x)); }
  // x · 2^n for whole n in [-150, 128]; zero where 2^n would be denormal.
  static Float ScaleByPowerOf2(Float x, Float n) {
    const Int bits = (__builtin_convertvector(n, Int) + 127) << 23;
    return x * (Float)(~(n < Set(-126)) & bits);
  }
  static float Sum(Float x) { return (x[0] + x[2]) + (x[1] + x[3]); }
  static float Highest(Float x) {
    const float a = x[0] > x[1] ? x[0] : x[1], b = x[2] > x[3] ? x[2] : x[3];
    return a > b ? a : b;
  }
  // Per lane: a < b ? yes : no.
  static Float IfLess(Float a, Float b, Float yes, Float no) { return Select(a < b, yes, no); }
  // Bit i: lane i of a is greater than that of b.
  static uint32_t GreaterBits(Float a, Float b) {
    const Int greater = a > b;
    return (greater[0] & 1) | (greater[1] & 2) | (greater[2] & 4) | (greater[3] & 8);
  }

  // a0 b0 a1 b1 … of the lower, and of the upper half of the lanes.
  static Float ZipLow(Float a, Float b) { return Float{a[0], b[0], a[1], b[1]}; }
  static Float ZipHigh(Float a, Float b) { return Float{a[2], b[2], a[3], b[3]}; }

 private:
  static Float Select(Int mask, Float yes, Float no) { return (Float)((mask & (Int)yes) | (~mask & (Int)no)); }
};

}  // namespace
}  // namespace salamander::kernels

#endif  // SALAMANDER_KERNELS_CPU_SIMD_PORTABLE_H_
