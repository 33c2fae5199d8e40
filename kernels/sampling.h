// How a token is drawn from logits: the same on every device, to the bit. What compares or adds up is an integer, so
// that no order of summing matters; a draw depends on the logits and on its SampleRow alone.
//
// With `best` the largest logit of a row, a token's distance is (best - logit) / temperature in units of 2^-24 of a
// halving: its weight is 2^(40 - distance / 2^24), rounded to an integer. Tokens of distance ≥ kDistanceLimit, about
// 1e-12 of the best, have none. Tokens are ordered by distance, those alike by id. top-k keeps the first k; top-p, of
// what that left, the fewest first ones that weigh at least top_p of it; min-p, of what that left, those that weigh at
// least min_p of the best. What is kept is always the nearest (a Cut). The draw goes through the kept in the order of
// ids.
#ifndef SALAMANDER_KERNELS_SAMPLING_H_
#define SALAMANDER_KERNELS_SAMPLING_H_

#include <algorithm>
#include <cstdint>
#include <limits>

namespace salamander::kernels {

// A logit becomes (logit > 0 ? logit / factor : logit · factor) + added, before anything else.
struct LogitEdit {
  int32_t row = 0;
  int32_t token = 0;
  float factor = 1;
  float added = 0;
};

struct SampleRow {
  float temperature = 1;  // 0: the largest logit, the lower id wins ties
  int32_t top_k = 0;      // 0: all
  float top_p = 1;
  float min_p = 0;
  uint64_t random = 0;  // uniform in [0, 2^53)
  // Log-probabilities of the model's own distribution, before edits: -1 none, 0 of the chosen token, n of the n
  // likeliest too. Where no logit is a number, all are -inf.
  int32_t logprobs = -1;
};
struct SampledToken {
  int32_t token = 0;
  float logprob = 0;  // if asked for
};
struct TokenLogprob {
  int32_t token = 0;
  float logprob = 0;
};

inline constexpr int kFractionBits = 24, kWeightBits = 40;
inline constexpr uint32_t kDistanceLimit = uint32_t{kWeightBits} << kFractionBits;
inline constexpr float kLowestLogit = -std::numeric_limits<float>::infinity();

// What can take part in comparisons and differences: NaN counts as -inf, +inf as the largest number, -0 as 0.
constexpr float Comparable(float logit) {
  if (!(logit == logit)) return kLowestLogit;
  return std::min(logit, std::numeric_limits<float>::max()) + 0.0f;
}

// Distance per logit, for a temperature > 0.
constexpr float DistanceScale(float temperature) {
  const double scale = 1.4426950408889634 * (1 << kFractionBits) / temperature;  // log2(e)
  return static_cast<float>(std::min(scale, static_cast<double>(std::numeric_limits<float>::max())));
}

// Of comparable logits; best is larger than -inf. Two roundings, by IEEE 754.
constexpr uint32_t DistanceOf(float logit, float best, float scale) {
  return static_cast<uint32_t>(std::min((best - logit) * scale, static_cast<float>(kDistanceLimit)));
}

// 2^(40 - distance / 2^24). Below 2^-f = 1 - f (a0 - f (a1 - …)), f in [0, 1), by least squares at Chebyshev nodes, in
// fixed point; within 2^-29 of it.
constexpr uint64_t WeightOf(uint32_t distance) {
  constexpr uint32_t kTerms[] = {48575, 639566, 5712139, 41304538, 238387507, 1031764940, 2977044471};
  if (distance >= kDistanceLimit) return 0;
  const uint64_t fraction = static_cast<uint32_t>(distance << (32 - kFractionBits));
  uint32_t sum = 0;
  for (const uint32_t term : kTerms) sum = term - static_cast<uint32_t>(fraction * sum >> 32);
  const uint64_t power = (uint64_t{1} << 31) - (fraction * sum >> 33);
  return (power << (kWeightBits - 31)) >> (distance >> kFractionBits);
}

// What is kept: tokens nearer than `distance` and, of those at it, the first `ties`; in all that, no weight below
// `least`.
struct Cut {
  uint32_t distance = kDistanceLimit;
  uint32_t ties = 0;
  uint64_t least = 0;
};

// ceil(total · part), part in [0, 1].
constexpr uint64_t PartOf(uint64_t total, float part) {
  __extension__ using Wide = unsigned __int128;
  constexpr int kBits = 62;
  const auto fixed = static_cast<uint64_t>(static_cast<double>(part) * (uint64_t{1} << kBits));
  return static_cast<uint64_t>((static_cast<Wide>(total) * fixed + ((uint64_t{1} << kBits) - 1)) >> kBits);
}

// Which point of [0, total) a draw hits.
constexpr uint64_t PointOf(uint64_t total, uint64_t random) {
  __extension__ using Wide = unsigned __int128;
  return static_cast<uint64_t>(static_cast<Wide>(total) * random >> 53);
}

// A cut is found by a histogram of distances, three times: of the upper bits, then of the next within the bin where the
// cut is, then of the lowest.
inline constexpr int kCutBins = 2048;
struct CutLevel {
  int shift, bits;
};
inline constexpr int kCutLevels = 3;
constexpr CutLevel CutLevelOf(int level) {
  constexpr CutLevel kLevels[kCutLevels] = {{19, 11}, {8, 11}, {0, 8}};
  return kLevels[level];
}

}  // namespace salamander::kernels

#endif  // SALAMANDER_KERNELS_SAMPLING_H_
