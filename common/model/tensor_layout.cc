// Names and shapes of a checkpoint's tensors, in the published naming.
#include <string>

#include "absl/strings/str_cat.h"
#include "common/model/checkpoint.h"

namespace salamander::model {
namespace {

using Shapes = std::map<std::string, std::vector<int64_t>>;

// A linear layer of [outputs, inputs].
void AddLinear(Shapes& shapes, const std::string& name, int64_t outputs, int64_t inputs, bool bias) {
  shapes[name + ".weight"] = {outputs, inputs};
  if (bias) shapes[name + ".bias"] = {outputs};
}

void AddSparse(Shapes& shapes, const std::string& prefix, const Config& config) {
  const int64_t width = config.heads * config.head_dim, kv_width = config.kv_heads * config.head_dim;
  AddLinear(shapes, prefix + "q_proj", width, config.hidden_size, config.attention_bias);
  AddLinear(shapes, prefix + "k_proj", kv_width, config.hidden_size, config.attention_bias);
  AddLinear(shapes, prefix + "v_proj", kv_width, config.hidden_size, config.attention_bias);
  AddLinear(shapes, prefix + "o_proj", config.hidden_size, width, config.attention_bias);
  if (config.attn_use_output_gate) AddLinear(shapes, prefix + "o_gate", width, config.hidden_size, false);
}

void AddLightning(Shapes& shapes, const std::string& prefix, const Config& config) {
  const int64_t head = config.lightning_head_dim;
  const int64_t width = config.lightning_heads * head, kv_width = config.lightning_kv_heads * head;
  AddLinear(shapes, prefix + "q_proj", width, config.hidden_size, config.attention_bias);
  AddLinear(shapes, prefix + "k_proj", kv_width, config.hidden_size, config.attention_bias);
  AddLinear(shapes, prefix + "v_proj", kv_width, config.hidden_size, config.attention_bias);
  AddLinear(shapes, prefix + "o_proj", config.hidden_size, width, config.attention_bias);
  if (config.qk_norm) {
    shapes[prefix + "q_norm.weight"] = {head};
    shapes[prefix + "k_norm.weight"] = {head};
  }
  if (config.use_output_norm) shapes[prefix + "o_norm.weight"] = {width};
  if (config.use_output_gate) AddLinear(shapes, prefix + "z_proj", width, config.hidden_size, false);
}

}  // namespace

Shapes ExpectedTensors(const Config& config) {
  Shapes shapes;
  shapes["model.embed_tokens.weight"] = {config.vocab_size, config.hidden_size};
  shapes["model.norm.weight"] = {config.hidden_size};
  if (!config.tie_word_embeddings) shapes["lm_head.weight"] = {config.vocab_size, config.hidden_size};
  for (size_t i = 0; i < config.layers.size(); ++i) {
    const std::string layer = absl::StrCat("model.layers.", i, ".");
    shapes[layer + "input_layernorm.weight"] = {config.hidden_size};
    shapes[layer + "post_attention_layernorm.weight"] = {config.hidden_size};
    AddLinear(shapes, layer + "mlp.gate_proj", config.intermediate_size, config.hidden_size, false);
    AddLinear(shapes, layer + "mlp.up_proj", config.intermediate_size, config.hidden_size, false);
    AddLinear(shapes, layer + "mlp.down_proj", config.hidden_size, config.intermediate_size, false);
    if (config.layers[i] == LayerKind::kSparse) {
      AddSparse(shapes, layer + "self_attn.", config);
    } else {
      AddLightning(shapes, layer + "self_attn.", config);
    }
  }
  return shapes;
}

}  // namespace salamander::model
