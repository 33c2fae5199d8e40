#include "tests/common/engine/plain_model.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "common/engine/float_convert.h"

namespace salamander::engine {

PlainModel::Vector PlainModel::Tensor(const std::string& name) const {
  if (!checkpoint_.has(name)) return {};
  const model::TensorView& view = checkpoint_.tensor(name);
  std::vector<float> values(view.elements());
  ToFloats(view.data, view.type == model::TensorType::kF32 ? kernels::DType::kFloat32 : kernels::DType::kBFloat16,
           view.elements(), values.data());
  return {values.begin(), values.end()};
}

PlainModel::Rows PlainModel::Linear(const std::string& name, const Rows& x) const {
  const Vector weight = Tensor(name + ".weight"), bias = Tensor(name + ".bias");
  const size_t inputs = x[0].size(), outputs = weight.size() / inputs;
  Rows y;
  for (const Vector& row : x) {
    Vector& out = y.emplace_back(bias.empty() ? Vector(outputs, 0) : bias);
    for (size_t o = 0; o < outputs; ++o) {
      for (size_t i = 0; i < inputs; ++i) out[o] += weight[o * inputs + i] * row[i];
    }
  }
  return y;
}

PlainModel::Vector PlainModel::Norm(const Vector& x, const Vector& weight) const {
  double squares = 0;
  for (const double value : x) squares += value * value;
  const double factor = 1 / std::sqrt(squares / static_cast<double>(x.size()) + config_.rms_norm_eps);
  Vector y = x;
  for (size_t i = 0; i < y.size(); ++i) y[i] *= factor * weight[i];
  return y;
}

PlainModel::Rows PlainModel::Heads(Rows x, int64_t head_dim, const Vector& norm, bool rotate) const {
  const int64_t half = head_dim / 2;
  for (size_t t = 0; t < x.size(); ++t) {
    for (auto head = x[t].begin(); head != x[t].end(); head += head_dim) {
      if (!norm.empty()) std::ranges::copy(Norm(Vector(head, head + head_dim), norm), head);
      for (int64_t i = 0; rotate && i < half; ++i) {
        const double angle = static_cast<double>(t) * std::pow(config_.rope_theta, -2.0 * i / head_dim);
        const double a = head[i], b = head[half + i];
        head[i] = a * std::cos(angle) - b * std::sin(angle);
        head[half + i] = b * std::cos(angle) + a * std::sin(angle);
      }
    }
  }
  return x;
}

PlainModel::Rows PlainModel::Gated(const std::string& prefix, const std::string& gate, const Rows& x, Rows out) const {
  const Vector norm = Tensor(prefix + "o_norm.weight");
  for (Vector& row : out) {
    if (!norm.empty()) row = Norm(row, norm);
  }
  if (checkpoint_.has(prefix + gate + ".weight")) {
    const Rows gates = Linear(prefix + gate, x);
    for (size_t t = 0; t < out.size(); ++t) {
      for (size_t i = 0; i < out[t].size(); ++i) out[t][i] /= 1 + std::exp(-gates[t][i]);
    }
  }
  return Linear(prefix + "o_proj", out);
}

PlainModel::Rows PlainModel::SparseMixer(const std::string& prefix, const Rows& x) const {
  const int64_t d = config_.head_dim, group = config_.heads / config_.kv_heads;
  const Rows q = Heads(Linear(prefix + "q_proj", x), d, {}, config_.attn_use_rope);
  const Rows k = Heads(Linear(prefix + "k_proj", x), d, {}, config_.attn_use_rope);
  const Rows v = Linear(prefix + "v_proj", x);
  Rows out(x.size(), Vector(config_.heads * d, 0));
  for (size_t t = 0; t < x.size(); ++t) {
    for (int64_t head = 0; head < config_.heads; ++head) {
      const int64_t from = head * d, kv_from = head / group * d;
      Vector p(t + 1, 0);
      double sum = 0;
      for (size_t s = 0; s <= t; ++s) {
        for (int64_t i = 0; i < d; ++i) p[s] += q[t][from + i] * k[s][kv_from + i] / std::sqrt(d);
        sum += p[s] = std::exp(p[s]);
      }
      for (size_t s = 0; s <= t; ++s) {
        for (int64_t i = 0; i < d; ++i) out[t][from + i] += p[s] / sum * v[s][kv_from + i];
      }
    }
  }
  return Gated(prefix, "o_gate", x, std::move(out));
}

PlainModel::Rows PlainModel::LightningMixer(const std::string& prefix, const Rows& x) const {
  const int64_t d = config_.lightning_head_dim, group = config_.lightning_heads / config_.lightning_kv_heads;
  const std::vector<float> slopes = model::LightningSlopes(config_.lightning_heads);
  const bool rotate = config_.lightning_use_rope;
  const Rows q = Heads(Linear(prefix + "q_proj", x), d, Tensor(prefix + "q_norm.weight"), rotate);
  const Rows k = Heads(Linear(prefix + "k_proj", x), d, Tensor(prefix + "k_norm.weight"), rotate);
  const Rows v = Linear(prefix + "v_proj", x);
  Rows out(x.size(), Vector(config_.lightning_heads * d, 0));
  for (int64_t head = 0; head < config_.lightning_heads; ++head) {
    const int64_t from = head * d, kv_from = head / group * d;
    Rows state(d, Vector(d, 0));
    for (size_t t = 0; t < x.size(); ++t) {
      for (int64_t i = 0; i < d; ++i) {
        for (int64_t j = 0; j < d; ++j) {
          state[i][j] = std::exp(-slopes[head]) * state[i][j] + k[t][kv_from + i] * v[t][kv_from + j];
          out[t][from + j] += config_.lightning_scale * q[t][from + i] * state[i][j];
        }
      }
    }
  }
  return Gated(prefix, "z_proj", x, std::move(out));
}

std::vector<std::vector<double>> PlainModel::Logits(const std::vector<int32_t>& tokens) const {
  const Vector table = Tensor("model.embed_tokens.weight");
  const int64_t size = config_.hidden_size;
  Rows hidden;
  for (const int32_t token : tokens) {
    hidden.emplace_back(table.begin() + token * size, table.begin() + (token + 1) * size);
    for (double& value : hidden.back()) value *= config_.scale_emb;
  }
  auto normed = [&](const std::string& name, double scale) {
    Rows rows;
    for (const Vector& row : hidden) {
      rows.push_back(Norm(row, Tensor(name)));
      for (double& value : rows.back()) value *= scale;
    }
    return rows;
  };
  auto add = [&](const Rows& delta) {
    for (size_t t = 0; t < hidden.size(); ++t) {
      for (int64_t i = 0; i < size; ++i) hidden[t][i] += config_.residual_scale() * delta[t][i];
    }
  };
  for (size_t layer = 0; layer < config_.layers.size(); ++layer) {
    const std::string prefix = absl::StrCat("model.layers.", layer, ".");
    const Rows x = normed(prefix + "input_layernorm.weight", 1);
    const bool sparse = config_.layers[layer] == model::LayerKind::kSparse;
    add(sparse ? SparseMixer(prefix + "self_attn.", x) : LightningMixer(prefix + "self_attn.", x));
    const Rows y = normed(prefix + "post_attention_layernorm.weight", 1);
    Rows gate = Linear(prefix + "mlp.gate_proj", y);
    const Rows up = Linear(prefix + "mlp.up_proj", y);
    for (size_t t = 0; t < gate.size(); ++t) {
      for (size_t i = 0; i < gate[t].size(); ++i) gate[t][i] *= up[t][i] / (1 + std::exp(-gate[t][i]));
    }
    add(Linear(prefix + "mlp.down_proj", gate));
  }
  const std::string head = config_.tie_word_embeddings ? "model.embed_tokens" : "lm_head";
  return Linear(head, normed("model.norm.weight", 1 / config_.logits_divisor()));
}

}  // namespace salamander::engine
