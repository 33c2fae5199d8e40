// Exponentials and sums over a simd vector type V (see ../simd_*.h).
//
// Everything in body/ is a template over V, compiled once per instruction set. Because code of the standard library
// inlined here could be merged by the linker with other files' copies, only types and built-ins are used.
#ifndef SALAMANDER_KERNELS_CPU_BODY_MATH_H_
#define SALAMANDER_KERNELS_CPU_BODY_MATH_H_

#include <cstdint>

namespace salamander::kernels::body {

inline constexpr float kLog2E = 1.44269504f;
// ln(2) in two parts (Cody and Waite): the first has so few bits that its product with a whole exponent is exact.
inline constexpr float kLn2High = 0.693359375f, kLn2Low = -2.12194440e-4f;

// 2^f for |f| ≤ 1/2. Minimax in relative error over that range, 2.6e-9, among polynomials of degree 6 that are exactly
// 1 at 0 (Remez exchange, then coefficients rounded to float32). With the rounding of its evaluation: 1.2 ulp.
template <class V>
typename V::Float Power2OfFraction(typename V::Float f) {
  auto p = V::Set(0x1.470b4ap-13f);
  p = V::Fma(p, f, V::Set(0x1.5f7276p-10f));
  p = V::Fma(p, f, V::Set(0x1.3b270ep-7f));
  p = V::Fma(p, f, V::Set(0x1.c6ae72p-5f));
  p = V::Fma(p, f, V::Set(0x1.ebfbe2p-3f));
  p = V::Fma(p, f, V::Set(0x1.62e432p-1f));
  return V::Fma(p, f, V::Set(1));
}

// 2^x within 2 ulp for finite x; exactly 1 for 0, 0 for x ≤ -150, ∞ from 128 on, NaN for NaN. Results under 2^-126 may
// be flushed to 0. Callers have no infinities: they stand in for them by ±1e30.
template <class V>
typename V::Float Exp2(typename V::Float x) {
  x = V::ClampExponent(x);
  const auto n = V::Round(x);
  return V::ScaleByPowerOf2(Power2OfFraction<V>(x - n), n);
}

// e^x within 2 ulp, for infinities too; ∞ from 88.4 or 88.7 on.
template <class V>
typename V::Float Exp(typename V::Float x) {
  x = V::Min(V::Set(88.8f), V::Max(V::Set(-103.9f), x));
  const auto n = V::Round(x * V::Set(kLog2E));
  const auto rest = V::Fma(n, V::Set(-kLn2Low), V::Fma(n, V::Set(-kLn2High), x));
  return V::ScaleByPowerOf2(Power2OfFraction<V>(rest * V::Set(kLog2E)), n);
}

template <class V>
typename V::Float Sigmoid(typename V::Float x) {
  return V::Set(1) / (V::Set(1) + Exp<V>(V::Set(0) - x));
}

// Calls f(offset, lanes) over [0, count) in vectors; `lanes` is V::kLanes but for the last.
template <class V, class F>
void ForVectors(int64_t count, F f) {
  int64_t i = 0;
  for (; i + V::kLanes <= count; i += V::kLanes) f(i, V::kLanes);
  if (i < count) f(i, static_cast<int>(count - i));
}

template <class V>
typename V::Float LoadAny(const float* p, int lanes) {
  return lanes == V::kLanes ? V::Load(p) : V::LoadPart(p, lanes);
}

template <class V>
void StoreAny(float* p, typename V::Float x, int lanes) {
  if (lanes == V::kLanes) {
    V::Store(p, x);
  } else {
    V::StorePart(p, x, lanes);
  }
}

// Σ x²
template <class V>
float SumOfSquares(const float* x, int64_t count) {
  auto sum = V::Set(0);
  ForVectors<V>(count, [&](int64_t i, int lanes) {
    const auto value = LoadAny<V>(x + i, lanes);
    sum = V::Fma(value, value, sum);
  });
  return V::Sum(sum);
}

}  // namespace salamander::kernels::body

#endif  // SALAMANDER_KERNELS_CPU_BODY_MATH_H_
