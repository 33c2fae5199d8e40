// Host-side conversion of single rows and vectors between the element types of checkpoints and devices.
#ifndef SALAMANDER_COMMON_ENGINE_FLOAT_CONVERT_H_
#define SALAMANDER_COMMON_ENGINE_FLOAT_CONVERT_H_

#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "kernels/kv_layout.h"

namespace salamander::engine {

inline float FloatOfBf16(uint16_t bits) { return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16); }

// Nearest, ties to even; NaN stays NaN.
inline uint16_t Bf16OfFloat(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  if (std::isnan(value)) return static_cast<uint16_t>((bits >> 16) | 0x40);
  return static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

// `from` holds `count` elements of `type`, at any alignment.
inline void ToFloats(const void* from, kernels::DType type, int64_t count, float* to) {
  if (type == kernels::DType::kFloat32) {
    std::memcpy(to, from, count * sizeof(float));
    return;
  }
  for (int64_t i = 0; i < count; ++i) {
    uint16_t bits;
    std::memcpy(&bits, static_cast<const std::byte*>(from) + i * sizeof(bits), sizeof(bits));
    to[i] = FloatOfBf16(bits);
  }
}

inline void FromFloats(const float* from, kernels::DType type, int64_t count, void* to) {
  if (type == kernels::DType::kFloat32) {
    std::memcpy(to, from, count * sizeof(float));
    return;
  }
  for (int64_t i = 0; i < count; ++i) {
    const uint16_t bits = Bf16OfFloat(from[i]);
    std::memcpy(static_cast<std::byte*>(to) + i * sizeof(bits), &bits, sizeof(bits));
  }
}

}  // namespace salamander::engine

#endif  // SALAMANDER_COMMON_ENGINE_FLOAT_CONVERT_H_
