// Configurations that no golden case covers, against the plain model.
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <functional>
#include <map>
#include <numeric>
#include <random>
#include <string>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/engine/forward.h"
#include "common/model/safetensors.h"
#include "tests/common/engine/golden_case.h"
#include "tests/common/engine/plain_model.h"

namespace salamander::engine {
namespace {

constexpr char kConfig[] = R"config({
  "architectures": ["MiniCPMSALAForCausalLM"], "model_type": "minicpm_sala", "torch_dtype": "bfloat16",
  "hidden_size": 96, "intermediate_size": 160, "vocab_size": 200, "num_hidden_layers": 4,
  "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32,
  "lightning_nh": 4, "lightning_nkv": 2, "lightning_head_dim": 16, "lightning_scale": "1/sqrt(d)",
  "lightning_use_rope": true, "attn_use_rope": false, "qk_norm": true, "use_output_norm": true,
  "use_output_gate": true, "attn_use_output_gate": true, "attention_bias": false, "rms_norm_eps": 1e-6,
  "rope_theta": 10000.0, "max_position_embeddings": 4096, "tie_word_embeddings": false, "scale_emb": 2.0,
  "scale_depth": 1.4, "dim_model_base": 32, "hidden_act": "silu", "bos_token_id": 1, "eos_token_id": 2,
  "mixer_types": ["lightning-attn", "minicpm4", "lightning-attn", "minicpm4"],
  "sparse_config": {"kernel_size": 32, "kernel_stride": 16, "init_blocks": 1, "block_size": 64, "window_size": 128,
                    "topk": 4, "use_nope": false, "dense_len": 512}
})config";

struct Variant {
  std::string name;
  std::vector<std::pair<std::string, std::string>> changes;  // keys of the configuration and their values
};

std::vector<Variant> Variants() {
  return {{"as_published", {}},
          {"bias", {{"attention_bias", "true"}}},
          {"rope_in_sparse_layers", {{"attn_use_rope", "true"}}},
          {"no_rope", {{"lightning_use_rope", "false"}}},
          {"no_qk_norm", {{"qk_norm", "false"}}},
          {"no_output_norm", {{"use_output_norm", "false"}}},
          {"no_gates", {{"use_output_gate", "false"}, {"attn_use_output_gate", "false"}}},
          {"tied", {{"tie_word_embeddings", "true"}}},
          {"scale_one_over_d", {{"lightning_scale", "\"1/d\""}}},
          {"bare",
           {{"attention_bias", "true"},
            {"lightning_use_rope", "false"},
            {"qk_norm", "false"},
            {"use_output_norm", "false"},
            {"use_output_gate", "false"},
            {"attn_use_output_gate", "false"},
            {"tie_word_embeddings", "true"}}}};
}

std::string ConfigOf(const Variant& variant) {
  std::string json = kConfig;
  for (const auto& [key, value] : variant.changes) {
    const size_t from = json.find(absl::StrCat("\"", key, "\": ")) + key.size() + 4;
    json.replace(from, json.find(',', from) - from, value);
  }
  return json;
}

// Random float32 weights, so that the other element type is covered too.
absl::StatusOr<std::unique_ptr<model::Checkpoint>> MakeVariant(const Variant& variant) {
  const std::string json = ConfigOf(variant);
  ASSIGN_OR_RETURN(const model::Config config, model::ParseConfig(json));
  std::mt19937 random(5);
  std::map<std::string, std::vector<float>> values;
  std::map<std::string, model::TensorView> tensors;
  for (const auto& [name, shape] : model::ExpectedTensors(config)) {
    const double middle = shape.size() == 1 && !name.ends_with("bias") ? 1 : 0;
    const double spread = shape.size() == 1 ? 0.3 : 1.7 / std::sqrt(shape.back());
    std::uniform_real_distribution<float> uniform(middle - spread, middle + spread);
    std::vector<float>& data = values[name];
    model::TensorView& view = tensors[name];
    view.type = model::TensorType::kF32;
    view.shape = shape;
    data.resize(std::accumulate(shape.begin(), shape.end(), int64_t{1}, std::multiplies<>()));
    for (float& value : data) value = uniform(random);
    view.data = reinterpret_cast<const std::byte*>(data.data());
    view.bytes = static_cast<int64_t>(data.size() * sizeof(float));
  }
  // Of this process alone; mapped files outlive their names.
  const std::string folder = absl::StrCat(::testing::TempDir(), "/variant_", variant.name, "_", getpid());
  std::filesystem::create_directories(folder);
  RETURN_IF_ERROR(model::WriteSafetensors(folder + "/model.safetensors", tensors));
  std::FILE* file = std::fopen((folder + "/config.json").c_str(), "w");
  if (file == nullptr) return absl::InternalError(absl::StrCat("cannot write into ", folder));
  std::fputs(json.c_str(), file);
  std::fclose(file);
  auto checkpoint = model::Checkpoint::Open(folder);
  std::filesystem::remove_all(folder);
  return checkpoint;
}

class VariantsTest : public ::testing::TestWithParam<Variant> {};

TEST_P(VariantsTest, LogitsOfPromptAndDecode) {
  const auto checkpoint = MakeVariant(GetParam());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  std::vector<int32_t> tokens;
  std::mt19937 random(9);
  for (int i = 0; i < 150; ++i) tokens.push_back(static_cast<int32_t>(random() % 200));
  const auto want = PlainModel(**checkpoint).Logits(tokens);

  MemoryLedger ledger(int64_t{1} << 30);
  const auto ops = *kernels::CreateCpuOps(2);
  const auto model = Model::Load(**checkpoint, ops.get(), &ledger);
  ASSERT_TRUE(model.ok()) << model.status();
  const auto sequence = *Sequence::Create(**model, ledger, 150);
  const auto workspace = *Workspace::Create(**model, ledger, 128);
  const auto activations = *SpanActivations::Create(**model, ledger, 128);
  const auto decode = *DecodeForward::Create(**model, ledger, 1);

  constexpr int64_t kPrompt = 140;
  std::vector<float> hidden;
  for (const int64_t begin : {0, 128}) {
    SpanForward span(*sequence, *workspace, *activations,
                     absl::MakeConstSpan(tokens).subspan(begin, std::min<int64_t>(128, kPrompt - begin)), begin,
                     kPrompt);
    while (span.phase() != SpanPhase::kFinished) ASSERT_TRUE(span.Step().ok());
    if (span.end() == kPrompt) hidden = *span.LastHidden();
  }
  absl::StatusOr<std::vector<float>> logits = LogitsAfter(*decode, decode->FirstStep({hidden.data()}));
  for (int64_t position = kPrompt - 1;; ++position) {
    ASSERT_TRUE(logits.ok()) << logits.status();
    const std::vector<float> row(want[position].begin(), want[position].end());
    EXPECT_LT(WorstError(*logits, row), 1e-5) << "position " << position;
    if (position + 1 == 150) break;
    logits = LogitsAfter(*decode, decode->Step({{sequence.get(), tokens[position + 1], position + 1}}));
  }
}

INSTANTIATE_TEST_SUITE_P(All, VariantsTest, ::testing::ValuesIn(Variants()),
                         [](const auto& instance) { return instance.param.name; });

}  // namespace
}  // namespace salamander::engine
