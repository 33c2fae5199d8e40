// The dense regime in plain float64, one loop per equation, for configurations that no golden case covers (biases,
// RoPE in sparse layers, models without norms or gates, tied embeddings).
#ifndef SALAMANDER_TESTS_COMMON_ENGINE_PLAIN_MODEL_H_
#define SALAMANDER_TESTS_COMMON_ENGINE_PLAIN_MODEL_H_

#include <cstdint>
#include <string>
#include <vector>

#include "common/model/checkpoint.h"

namespace salamander::engine {

class PlainModel {
 public:
  // The checkpoint outlives it.
  explicit PlainModel(const model::Checkpoint& checkpoint) : checkpoint_(checkpoint), config_(checkpoint.config()) {}

  // Logits after every token: [tokens][vocab].
  std::vector<std::vector<double>> Logits(const std::vector<int32_t>& tokens) const;

 private:
  using Vector = std::vector<double>;
  using Rows = std::vector<Vector>;

  // Empty if the checkpoint has no such tensor.
  Vector Tensor(const std::string& name) const;
  // x · weightᵀ + bias, for NAME.weight and NAME.bias.
  Rows Linear(const std::string& name, const Rows& x) const;
  Vector Norm(const Vector& x, const Vector& weight) const;
  // Per head: norm if the checkpoint has the weight, rotation if `rotate`.
  Rows Heads(Rows x, int64_t head_dim, const Vector& norm, bool rotate) const;
  Rows SparseMixer(const std::string& prefix, const Rows& x) const;
  Rows LightningMixer(const std::string& prefix, const Rows& x) const;
  Rows Gated(const std::string& prefix, const std::string& gate, const Rows& x, Rows out) const;

  const model::Checkpoint& checkpoint_;
  const model::Config& config_;
};

}  // namespace salamander::engine

#endif  // SALAMANDER_TESTS_COMMON_ENGINE_PLAIN_MODEL_H_
