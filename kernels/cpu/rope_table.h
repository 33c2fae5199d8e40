// Cosines and sines of rotary embeddings for the rows of one call, exact to float32 at any position.
#ifndef SALAMANDER_KERNELS_CPU_ROPE_TABLE_H_
#define SALAMANDER_KERNELS_CPU_ROPE_TABLE_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"

namespace salamander::kernels {

// Angles are position · theta^(-2i/dim). In float32 a position of a million would leave four digits of an angle, so
// they are taken in float64: position = 64 a + b, the sines of 64a and of b from the library, their sum by the addition
// theorem. Not thread-safe.
class RopeTable {
 public:
  RopeTable(int64_t dim, float theta);

  bool Serves(int64_t dim, float theta) const { return dim == dim_ && theta == theta_; }
  // Fills the rows below for these positions. All layers of a forward pass ask for the same ones: then nothing is done.
  void Prepare(absl::Span<const int64_t> positions);

  // [rows, dim / 2]
  const float* cosines() const { return cosines_.data(); }
  const float* sines() const { return sines_.data(); }

 private:
  int64_t dim_;
  float theta_;
  std::vector<double> frequencies_;              // [dim / 2]
  std::vector<double> low_cosines_, low_sines_;  // [64, dim / 2]: of b
  std::vector<int64_t> positions_;
  std::vector<float> cosines_, sines_;
};

}  // namespace salamander::kernels

#endif  // SALAMANDER_KERNELS_CPU_ROPE_TABLE_H_
