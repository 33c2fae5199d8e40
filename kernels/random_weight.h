// Weights of a model that was never trained, to measure with: about normal, with the variance 1 / inputs that keeps
// activations of the order of one. The same on every device: float32 values that BF16 holds exactly.
#ifndef SALAMANDER_KERNELS_RANDOM_WEIGHT_H_
#define SALAMANDER_KERNELS_RANDOM_WEIGHT_H_

#include <bit>
#include <cmath>
#include <cstdint>

namespace salamander::kernels {

// For a weight of `inputs` columns: what a value of the sum below, which has variance 2³² / 3, is multiplied by.
inline float RandomWeightScale(int64_t inputs) {
  return static_cast<float>(std::sqrt(3.0 / static_cast<double>(inputs)) / 65536.0);
}

// Number i, in row-major order, of the weight of `seed`. Host and device.
constexpr float RandomWeight(uint64_t seed, int64_t i, float scale) {
  // SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014).
  uint64_t z = seed * 0xd1342543de82ef95u + static_cast<uint64_t>(i + 1) * 0x9e3779b97f4a7c15u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  z ^= z >> 31;
  // Four uniform numbers of 16 bits, less their mean: a bell within ± 3.5 standard deviations.
  const int32_t sum = static_cast<int32_t>((z & 0xffff) + (z >> 16 & 0xffff) + (z >> 32 & 0xffff) + (z >> 48)) - 131070;
  const float value = static_cast<float>(sum) * scale;
  // To the nearest BF16, ties to even.
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  return std::bit_cast<float>((bits + 0x7fffu + (bits >> 16 & 1)) & 0xffff0000u);
}

}  // namespace salamander::kernels

#endif  // SALAMANDER_KERNELS_RANDOM_WEIGHT_H_
