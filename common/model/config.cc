#include "common/model/config.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/model/json_fields.h"
#include "nlohmann/json.hpp"

namespace salamander::model {
namespace {

using nlohmann::json;

// Limits far beyond any model of this family; they keep every product of sizes within 64 bits.
constexpr int64_t kMaxWidth = int64_t{1} << 20;  // hidden, intermediate, heads · head size
constexpr int64_t kMaxVocab = int64_t{1} << 24;
constexpr int64_t kMaxLayers = 4096;
constexpr int64_t kMaxHeads = 4096;
constexpr int64_t kMaxHeadDim = 4096;
constexpr int64_t kMaxTokens = int64_t{1} << 40;

void ReadSizes(JsonFields& fields, Config& config) {
  config.hidden_size = fields.Integer("hidden_size", 1, kMaxWidth);
  config.intermediate_size = fields.Integer("intermediate_size", 1, kMaxWidth);
  config.vocab_size = fields.Integer("vocab_size", 1, kMaxVocab);
  config.max_position_embeddings = fields.Integer("max_position_embeddings", 1, kMaxTokens);
  config.heads = fields.Integer("num_attention_heads", 1, kMaxHeads);
  config.kv_heads = fields.Integer("num_key_value_heads", 1, kMaxHeads, config.heads);
  config.head_dim = fields.Integer("head_dim", 1, kMaxHeadDim, std::max<int64_t>(1, config.hidden_size / config.heads));
  config.lightning_heads = fields.Integer("lightning_nh", 1, kMaxHeads, config.heads);
  config.lightning_kv_heads = fields.Integer("lightning_nkv", 1, kMaxHeads, config.kv_heads);
  config.lightning_head_dim = fields.Integer("lightning_head_dim", 1, kMaxHeadDim, config.head_dim);
}

void ReadMixers(JsonFields& fields, Config& config) {
  const int64_t count = fields.Integer("num_hidden_layers", 1, kMaxLayers);
  const json* mixers = fields.Find("mixer_types");
  if (mixers == nullptr || !mixers->is_array()) {
    return fields.Fail("mixer_types", "a list with a mixer per layer",
                       mixers == nullptr ? "no such key" : Show(*mixers));
  }
  if (std::ssize(*mixers) != count) {
    return fields.Fail("mixer_types", absl::StrCat(count, " entries, as num_hidden_layers says"),
                       absl::StrCat(mixers->size()));
  }
  for (const json& mixer : *mixers) {
    if (mixer == "minicpm4") {
      config.layers.push_back(LayerKind::kSparse);
    } else if (mixer == "lightning-attn" || mixer == "lightning_attn" || mixer == "lightning") {
      config.layers.push_back(LayerKind::kLightning);
    } else {
      const std::string key = absl::StrCat("mixer_types[", config.layers.size(), "]");
      return fields.Fail(key.c_str(), "\"minicpm4\", \"lightning-attn\", \"lightning_attn\" or \"lightning\"",
                         Show(mixer));
    }
  }
}

void ReadSwitches(JsonFields& fields, Config& config) {
  config.attn_use_rope = fields.Boolean("attn_use_rope", config.attn_use_rope);
  config.attn_use_output_gate = fields.Boolean("attn_use_output_gate", config.attn_use_output_gate);
  config.lightning_use_rope = fields.Boolean("lightning_use_rope", config.lightning_use_rope);
  config.qk_norm = fields.Boolean("qk_norm", config.qk_norm);
  config.use_output_norm = fields.Boolean("use_output_norm", config.use_output_norm);
  config.use_output_gate = fields.Boolean("use_output_gate", config.use_output_gate);
  config.attention_bias = fields.Boolean("attention_bias", config.attention_bias);
  config.tie_word_embeddings = fields.Boolean("tie_word_embeddings", config.tie_word_embeddings);
  const json* activation = fields.Find("hidden_act");
  if (activation != nullptr && *activation != "silu") fields.Fail("hidden_act", "\"silu\"", Show(*activation));
  const json* scaling = fields.Find("rope_scaling");
  if (scaling != nullptr) fields.Fail("rope_scaling", "null: positions are used as they are", Show(*scaling));
}

void ReadScales(JsonFields& fields, Config& config) {
  config.rms_norm_eps = fields.Positive("rms_norm_eps", config.rms_norm_eps);
  config.rope_theta = fields.Positive("rope_theta", config.rope_theta);
  config.scale_emb = fields.Positive("scale_emb", config.scale_emb);
  config.scale_depth = fields.Positive("scale_depth", config.scale_depth);
  config.dim_model_base = fields.Positive("dim_model_base");
  const double head_dim = static_cast<double>(config.lightning_head_dim);
  const json* scale = fields.Find("lightning_scale");
  if (scale == nullptr || *scale == "1/sqrt(d)") {
    config.lightning_scale = 1 / std::sqrt(head_dim);
  } else if (*scale == "1/d") {
    config.lightning_scale = 1 / head_dim;
  } else if (*scale == "none") {
    config.lightning_scale = 1;
  } else {
    fields.Fail("lightning_scale", "\"1/sqrt(d)\", \"1/d\" or \"none\"", Show(*scale));
  }
}

void ReadTokenIds(JsonFields& fields, Config& config) {
  config.bos_token_id = static_cast<int32_t>(fields.Integer("bos_token_id", 0, config.vocab_size - 1, 1));
  const json* eos = fields.Find("eos_token_id");
  const json list = eos == nullptr ? json::array({2}) : eos->is_array() ? *eos : json::array({*eos});
  for (const json& id : list) {
    // A number beyond int64 wraps to a negative one.
    const int64_t value = id.is_number_integer() ? id.get<int64_t>() : -1;
    if (value < 0 || value >= config.vocab_size) {
      return fields.Fail("eos_token_id", absl::StrCat("token ids from 0 to ", config.vocab_size - 1), Show(id));
    }
    config.eos_token_ids.push_back(static_cast<int32_t>(value));
  }
}

absl::Status ReadSparse(const JsonFields& outer, Config& config) {
  static const json kPublished = json::object();
  const json* sparse = outer.Find("sparse_config");
  if (sparse != nullptr && !sparse->is_object()) {
    return absl::InvalidArgumentError(
        absl::StrCat("config.json: sparse_config: expected an object, found ", Show(*sparse)));
  }
  JsonFields fields(sparse == nullptr ? kPublished : *sparse, "config.json: sparse_config.");
  // The tiers' geometry is built into the kernels.
  fields.Integer("kernel_size", 32, 32, 32);
  fields.Integer("kernel_stride", 16, 16, 16);
  fields.Integer("block_size", 64, 64, 64);
  config.init_blocks = fields.Integer("init_blocks", 0, kMaxTokens, config.init_blocks);
  config.window_size = fields.Integer("window_size", 64, kMaxTokens, config.window_size);
  config.topk = fields.Integer("topk", 0, kMaxTokens, config.topk);
  config.dense_len = fields.Integer("dense_len", 0, kMaxTokens, config.dense_len);
  if (config.window_size % 64 != 0) {
    fields.Fail("window_size", "a multiple of 64", absl::StrCat(config.window_size));
  }
  return fields.status();
}

// Sizes that must suit each other.
void CheckSizes(JsonFields& fields, const Config& config) {
  const auto check_heads = [&](const char* heads_key, int64_t heads, const char* kv_key, int64_t kv, int64_t head_dim) {
    if (heads % kv != 0) {
      fields.Fail(heads_key, absl::StrCat("a multiple of ", kv_key, ", which is ", kv), absl::StrCat(heads));
    }
    if (heads * head_dim > kMaxWidth) {
      fields.Fail(heads_key, absl::StrCat("at most ", kMaxWidth, " together with the head size of ", head_dim),
                  absl::StrCat(heads));
    }
  };
  check_heads("num_attention_heads", config.heads, "num_key_value_heads", config.kv_heads, config.head_dim);
  check_heads("lightning_nh", config.lightning_heads, "lightning_nkv", config.lightning_kv_heads,
              config.lightning_head_dim);
  const auto check_rope = [&](const char* key, bool rope, int64_t head_dim) {
    if (rope && head_dim % 2 != 0) fields.Fail(key, "an even number, to rotate halves", absl::StrCat(head_dim));
  };
  check_rope("head_dim", config.attn_use_rope, config.head_dim);
  check_rope("lightning_head_dim", config.lightning_use_rope, config.lightning_head_dim);
}

}  // namespace

double Config::residual_scale() const { return scale_depth / std::sqrt(static_cast<double>(layers.size())); }

int64_t Config::CountLayers(LayerKind kind) const { return std::count(layers.begin(), layers.end(), kind); }

absl::StatusOr<Config> ParseConfig(std::string_view text) {
  const json object = ParseJson(text);
  if (!object.is_object()) {
    return absl::InvalidArgumentError(absl::StrCat("config.json: expected a JSON object, found ",
                                                   object.is_discarded() ? "malformed JSON" : Show(object)));
  }
  Config config;
  JsonFields fields(object, "config.json: ");
  ReadSizes(fields, config);
  ReadMixers(fields, config);
  ReadSwitches(fields, config);
  ReadScales(fields, config);
  ReadTokenIds(fields, config);
  CheckSizes(fields, config);
  RETURN_IF_ERROR(fields.status());
  RETURN_IF_ERROR(ReadSparse(fields, config));
  return config;
}

std::vector<float> LightningSlopes(int64_t heads) {
  const auto power_of_two = [](int64_t n) {
    std::vector<float> slopes;
    const double ratio = std::exp2(-8.0 / static_cast<double>(n));
    for (int64_t h = 0; h < n; ++h) slopes.push_back(static_cast<float>(std::pow(ratio, h + 1)));
    return slopes;
  };
  const auto lower = static_cast<int64_t>(std::bit_floor(static_cast<uint64_t>(heads)));
  std::vector<float> slopes = power_of_two(lower);
  const std::vector<float> finer = power_of_two(2 * lower);
  for (int64_t h = 0; std::ssize(slopes) < heads; h += 2) slopes.push_back(finer[h]);
  return slopes;
}

}  // namespace salamander::model
