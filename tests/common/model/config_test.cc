#include "common/model/config.h"

#include <gmock/gmock.h>

#include <cmath>

#include "common/model/read_file.h"
#include "nlohmann/json.hpp"
#include "tests/testing/paths.h"

namespace salamander::model {
namespace {

using nlohmann::json;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

json Golden(const std::string& name) {
  return json::parse(*ReadFile(testing::TestData("golden/" + name + "/config.json")));
}

TEST(ConfigTest, ReadsThePublishedKeys) {
  const auto config = ParseConfig(Golden("odd").dump());
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->hidden_size, 128);
  EXPECT_EQ(config->CountLayers(LayerKind::kSparse), 3);
  EXPECT_EQ(config->layers[3], LayerKind::kSparse);
  EXPECT_EQ(config->lightning_heads, 6);
  EXPECT_EQ(config->lightning_kv_heads, 2);
  EXPECT_EQ(config->window_size, 128);
  EXPECT_EQ(config->top_blocks(), 6);
  EXPECT_EQ(config->dense_len, 512);
  EXPECT_THAT(config->eos_token_ids, ElementsAre(2, 511));
  EXPECT_DOUBLE_EQ(config->logits_divisor(), 4);
  EXPECT_DOUBLE_EQ(config->residual_scale(), 1.4 / std::sqrt(6.0));
  EXPECT_DOUBLE_EQ(config->lightning_scale, 1 / std::sqrt(32.0));
}

TEST(ConfigTest, AbsentOrNullKeysTakeTheirDefaults) {
  json object = Golden("dense");
  object.erase("sparse_config");
  object["lightning_nh"] = nullptr;
  object["eos_token_id"] = 7;
  const auto config = ParseConfig(object.dump());
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->lightning_heads, 8);
  EXPECT_EQ(config->dense_len, 8192);
  EXPECT_EQ(config->top_blocks(), 96);
  EXPECT_THAT(config->eos_token_ids, ElementsAre(7));
}

TEST(ConfigTest, KnowsEveryNameOfTheLightningMixer) {
  json object = Golden("wide");
  object["mixer_types"] = {"lightning", "lightning_attn", "lightning-attn"};
  const auto config = ParseConfig(object.dump());
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->CountLayers(LayerKind::kLightning), 3);
}

struct Fault {
  const char* key;  // a JSON pointer
  json value;       // discarded: the key is removed
  std::vector<std::string> says;
};

const json kAbsent(json::value_t::discarded);

class ConfigFaultTest : public ::testing::TestWithParam<Fault> {};

TEST_P(ConfigFaultTest, IsRefusedByName) {
  json object = Golden("dense");
  const json::json_pointer pointer(GetParam().key);
  if (GetParam().value.is_discarded()) {
    object.at(pointer.parent_pointer()).erase(pointer.back());
  } else {
    object[pointer] = GetParam().value;
  }
  const auto config = ParseConfig(object.dump());
  ASSERT_EQ(config.status().code(), absl::StatusCode::kInvalidArgument) << config.status();
  for (const std::string& word : GetParam().says) {
    EXPECT_THAT(std::string(config.status().message()), HasSubstr(word));
  }
}

INSTANTIATE_TEST_SUITE_P(
    All, ConfigFaultTest,
    ::testing::Values(
        Fault{"/hidden_size", kAbsent, {"hidden_size", "no such key"}},
        Fault{"/hidden_size", "128", {"hidden_size", "\"128\""}},
        Fault{"/hidden_size", 0, {"hidden_size", "from 1", "found 0"}},
        Fault{"/intermediate_size", -5, {"intermediate_size", "found -5"}},
        Fault{"/vocab_size", 18446744073709551615u, {"vocab_size", "18446744073709551615"}},
        Fault{"/vocab_size", 1.5, {"vocab_size", "whole number", "1.5"}},
        Fault{"/num_hidden_layers", 7, {"mixer_types", "7 entries", "found 6"}},
        Fault{"/mixer_types", kAbsent, {"mixer_types", "no such key"}},
        Fault{"/mixer_types/2", "mamba", {"mixer_types[2]", "minicpm4", "\"mamba\""}},
        Fault{"/mixer_types/5", 3, {"mixer_types[5]", "found 3"}},
        Fault{"/num_key_value_heads", 3, {"num_attention_heads", "num_key_value_heads, which is 3", "found 8"}},
        Fault{"/lightning_nkv", 3, {"lightning_nh", "lightning_nkv, which is 3", "found 4"}},
        Fault{"/lightning_head_dim", 33, {"lightning_head_dim", "even", "found 33"}},
        Fault{"/head_dim", 1000000000, {"head_dim", "found 1000000000"}},
        Fault{"/lightning_scale", "1/cbrt(d)", {"lightning_scale", "1/sqrt(d)", "1/cbrt(d)"}},
        Fault{"/qk_norm", 1, {"qk_norm", "true or false", "found 1"}},
        Fault{"/rms_norm_eps", 0, {"rms_norm_eps", "greater than 0"}},
        Fault{"/dim_model_base", kAbsent, {"dim_model_base", "no such key"}},
        Fault{"/hidden_act", "gelu", {"hidden_act", "silu", "gelu"}},
        Fault{"/rope_scaling", json{{"factor", 4}}, {"rope_scaling", "null"}},
        Fault{"/eos_token_id", 512, {"eos_token_id", "0 to 511", "found 512"}},
        Fault{"/eos_token_id/1", -1, {"eos_token_id", "found -1"}},
        Fault{"/bos_token_id", 512, {"bos_token_id", "found 512"}},
        Fault{"/sparse_config", 3, {"sparse_config", "object"}},
        Fault{"/sparse_config/kernel_size", 64, {"sparse_config.kernel_size", "from 32 to 32", "found 64"}},
        Fault{"/sparse_config/kernel_stride", 8, {"sparse_config.kernel_stride", "found 8"}},
        Fault{"/sparse_config/block_size", 128, {"sparse_config.block_size", "found 128"}},
        Fault{"/sparse_config/window_size", 100, {"sparse_config.window_size", "multiple of 64", "found 100"}},
        Fault{"/sparse_config/topk", -1, {"sparse_config.topk", "found -1"}}));

TEST(ConfigTest, RefusesWhatIsNoJsonObject) {
  for (const char* text : {"", "[1,2", "[]", "3", "{\"a\":1e999}"}) {
    EXPECT_EQ(ParseConfig(text).status().code(), absl::StatusCode::kInvalidArgument) << text;
  }
  EXPECT_FALSE(ParseConfig(std::string(1'000'000, '[')).ok());
}

TEST(LightningSlopesTest, AreTheAlibiSlopes) {
  const auto slopes = LightningSlopes(32);
  ASSERT_EQ(slopes.size(), 32u);
  EXPECT_FLOAT_EQ(slopes[0], std::pow(2.0f, -0.25f));
  EXPECT_FLOAT_EQ(slopes[31], 1.0f / 256);
}

TEST(LightningSlopesTest, AreInterleavedForOtherCounts) {
  // 4 heads: 2^-2 … 2^-8; then every second one of 8 heads: 2^-1, 2^-3.
  EXPECT_THAT(LightningSlopes(6), ElementsAre(0.25f, 0.0625f, 0.015625f, 0.00390625f, 0.5f, 0.125f));
  EXPECT_THAT(LightningSlopes(1), ElementsAre(1.0f / 256));
}

}  // namespace
}  // namespace salamander::model
