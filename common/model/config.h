// config.json of a MiniCPM-SALA checkpoint, checked.
#ifndef SALAMANDER_COMMON_MODEL_CONFIG_H_
#define SALAMANDER_COMMON_MODEL_CONFIG_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace salamander::model {

// Prompt and output together, where neither flag nor max_position_embeddings allows more: no scaling trick is needed.
inline constexpr int64_t kMaxTotalTokens = int64_t{4} << 20;

enum class LayerKind { kSparse, kLightning };

// Defaults are those of the published configuration where a key may be absent.
struct Config {
  int64_t hidden_size = 0;
  int64_t intermediate_size = 0;
  int64_t vocab_size = 0;
  std::vector<LayerKind> layers;  // mixer_types
  int64_t max_position_embeddings = 0;

  // Sparse layers.
  int64_t heads = 0, kv_heads = 0, head_dim = 0;
  bool attn_use_rope = false;
  bool attn_use_output_gate = true;
  int64_t init_blocks = 1;
  int64_t window_size = 2048;
  int64_t topk = 64;
  int64_t dense_len = 8192;

  // Lightning layers.
  int64_t lightning_heads = 0, lightning_kv_heads = 0, lightning_head_dim = 0;
  bool lightning_use_rope = true;
  bool qk_norm = true;
  bool use_output_norm = true;
  bool use_output_gate = true;
  double lightning_scale = 1;  // resolved from "1/sqrt(d)", "1/d" or none

  bool attention_bias = false;
  bool tie_word_embeddings = false;
  double rms_norm_eps = 1e-6;
  double rope_theta = 10000;
  double scale_emb = 1;
  double scale_depth = 1;
  double dim_model_base = 0;
  int32_t bos_token_id = 1;
  std::vector<int32_t> eos_token_ids;

  int64_t local_blocks() const { return window_size / 64; }
  int64_t top_blocks() const { return topk + local_blocks(); }
  // Factor of every residual addition: scale_depth / sqrt(layers).
  double residual_scale() const;
  // Divisor of the final norm's output before lm_head.
  double logits_divisor() const { return static_cast<double>(hidden_size) / dim_model_base; }
  int64_t CountLayers(LayerKind kind) const;
};

// INVALID_ARGUMENT naming the key, what was expected and what was found: missing keys, wrong types, unknown mixers,
// sizes that do not fit each other, sparse_config other than kernel 32/16 and block 64.
absl::StatusOr<Config> ParseConfig(std::string_view json);

// Decay rate per lightning head: the ALiBi slopes, interleaved for head counts that are no power of two.
std::vector<float> LightningSlopes(int64_t heads);

}  // namespace salamander::model

#endif  // SALAMANDER_COMMON_MODEL_CONFIG_H_
