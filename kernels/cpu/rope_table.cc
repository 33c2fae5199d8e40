#include "kernels/cpu/rope_table.h"

#include <algorithm>
#include <cmath>

namespace salamander::kernels {
namespace {
constexpr int64_t kLow = 64;
}

RopeTable::RopeTable(int64_t dim, float theta) : dim_(dim), theta_(theta) {
  for (int64_t i = 0; i < dim / 2; ++i) {
    frequencies_.push_back(
        std::pow(static_cast<double>(theta), -2.0 * static_cast<double>(i) / static_cast<double>(dim)));
  }
  for (int64_t b = 0; b < kLow; ++b) {
    for (double frequency : frequencies_) {
      low_cosines_.push_back(std::cos(static_cast<double>(b) * frequency));
      low_sines_.push_back(std::sin(static_cast<double>(b) * frequency));
    }
  }
}

void RopeTable::Prepare(absl::Span<const int64_t> positions) {
  if (std::equal(positions.begin(), positions.end(), positions_.begin(), positions_.end())) return;
  positions_.assign(positions.begin(), positions.end());
  const size_t half = frequencies_.size();
  cosines_.resize(positions.size() * half);
  sines_.resize(positions.size() * half);
  std::vector<double> high_cosines(half), high_sines(half);
  int64_t high = -1;
  for (size_t r = 0; r < positions.size(); ++r) {
    if (positions[r] / kLow != high) {
      high = positions[r] / kLow;
      for (size_t i = 0; i < half; ++i) {
        const double angle = static_cast<double>(high * kLow) * frequencies_[i];
        high_cosines[i] = std::cos(angle);
        high_sines[i] = std::sin(angle);
      }
    }
    const double* low_cosines = &low_cosines_[positions[r] % kLow * half];
    const double* low_sines = &low_sines_[positions[r] % kLow * half];
    for (size_t i = 0; i < half; ++i) {
      cosines_[r * half + i] = static_cast<float>(high_cosines[i] * low_cosines[i] - high_sines[i] * low_sines[i]);
      sines_[r * half + i] = static_cast<float>(high_sines[i] * low_cosines[i] + high_cosines[i] * low_sines[i]);
    }
  }
}

}  // namespace salamander::kernels
