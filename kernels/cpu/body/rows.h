// Element-wise kernels over rows.
#ifndef SALAMANDER_KERNELS_CPU_BODY_ROWS_H_
#define SALAMANDER_KERNELS_CPU_BODY_ROWS_H_

#include <cstdint>

#include "kernels/cpu/body/math.h"
#include "kernels/cpu/kernel_table.h"

namespace salamander::kernels::body {

// 1 / sqrt(mean(x²) + eps)
template <class V>
float RmsFactor(const float* x, int64_t count, float eps) {
  return 1 / __builtin_sqrtf(SumOfSquares<V>(x, count) / static_cast<float>(count) + eps);
}

// out = x · factor · weight
template <class V>
void ScaleByWeight(const float* x, float factor, const float* weight, int64_t count, float* out) {
  const auto scale = V::Set(factor);
  ForVectors<V>(count, [&](int64_t i, int lanes) {
    StoreAny<V>(out + i, LoadAny<V>(x + i, lanes) * scale * LoadAny<V>(weight + i, lanes), lanes);
  });
}

template <class V>
void AddRmsNorm(const AddRmsNormTask& task) {
  for (int64_t r = 0; r < task.rows; ++r) {
    float* hidden = task.hidden.data + r * task.hidden.stride;
    if (task.delta.data != nullptr) {
      const float* delta = task.delta.data + r * task.delta.stride;
      const auto scale = V::Set(task.delta_scale);
      ForVectors<V>(task.cols, [&](int64_t i, int lanes) {
        StoreAny<V>(hidden + i, V::Fma(LoadAny<V>(delta + i, lanes), scale, LoadAny<V>(hidden + i, lanes)), lanes);
      });
    }
    if (task.x.data == nullptr) continue;
    const float factor = RmsFactor<V>(hidden, task.cols, task.eps) * task.x_scale;
    ScaleByWeight<V>(hidden, factor, task.norm, task.cols, task.x.data + r * task.x.stride);
  }
}

template <class V>
void HeadNormRope(const HeadNormRopeTask& task) {
  const int64_t half = task.dim / 2;
  for (int64_t r = 0; r < task.rows; ++r) {
    for (int64_t h = 0; h < task.heads; ++h) {
      float* x = task.x.data + r * task.x.stride + h * task.dim;
      if (task.norm != nullptr) ScaleByWeight<V>(x, RmsFactor<V>(x, task.dim, task.eps), task.norm, task.dim, x);
      if (task.cosines == nullptr) continue;
      ForVectors<V>(half, [&](int64_t i, int lanes) {
        const auto a = LoadAny<V>(x + i, lanes), b = LoadAny<V>(x + half + i, lanes);
        const auto c = LoadAny<V>(task.cosines + r * half + i, lanes), s = LoadAny<V>(task.sines + r * half + i, lanes);
        StoreAny<V>(x + i, V::Fma(a, c, V::Set(0) - b * s), lanes);
        StoreAny<V>(x + half + i, V::Fma(b, c, a * s), lanes);
      });
    }
  }
}

template <class V>
void NormGate(const NormGateTask& task) {
  for (int64_t r = 0; r < task.rows; ++r) {
    float* x = task.x.data + r * task.x.stride;
    if (task.norm != nullptr) ScaleByWeight<V>(x, RmsFactor<V>(x, task.cols, task.eps), task.norm, task.cols, x);
    if (task.gate.data == nullptr) continue;
    const float* gate = task.gate.data + r * task.gate.stride;
    ForVectors<V>(task.cols, [&](int64_t i, int lanes) {
      StoreAny<V>(x + i, LoadAny<V>(x + i, lanes) * Sigmoid<V>(LoadAny<V>(gate + i, lanes)), lanes);
    });
  }
}

template <class V>
void SiluMul(const float* gate, const float* up, float* out, int64_t count) {
  ForVectors<V>(count, [&](int64_t i, int lanes) {
    const auto g = LoadAny<V>(gate + i, lanes);
    StoreAny<V>(out + i, g * Sigmoid<V>(g) * LoadAny<V>(up + i, lanes), lanes);
  });
}

template <class V>
void MeanOfRows(const float* a, const float* b, int64_t count, int64_t dim, float* out) {
  const auto scale = V::Set(0.5f / static_cast<float>(count));
  ForVectors<V>(dim, [&](int64_t i, int lanes) {
    auto sum = V::Set(0), other = V::Set(0);
    for (int64_t r = 0; r < count; ++r) {
      sum = sum + LoadAny<V>(a + r * dim + i, lanes);
      other = other + LoadAny<V>(b + r * dim + i, lanes);
    }
    StoreAny<V>(out + i, (sum + other) * scale, lanes);
  });
}

template <class V>
void ExpOf(const float* x, float* out, int64_t count) {
  ForVectors<V>(count, [&](int64_t i, int lanes) { StoreAny<V>(out + i, Exp<V>(LoadAny<V>(x + i, lanes)), lanes); });
}

template <class V>
void Exp2Of(const float* x, float* out, int64_t count) {
  ForVectors<V>(count, [&](int64_t i, int lanes) { StoreAny<V>(out + i, Exp2<V>(LoadAny<V>(x + i, lanes)), lanes); });
}

}  // namespace salamander::kernels::body

#endif  // SALAMANDER_KERNELS_CPU_BODY_ROWS_H_
