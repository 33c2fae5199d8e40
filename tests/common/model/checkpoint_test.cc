#include "common/model/checkpoint.h"

#include <gmock/gmock.h>

#include <filesystem>
#include <functional>

#include "common/model/read_file.h"
#include "nlohmann/json.hpp"
#include "tests/testing/make_checkpoint.h"
#include "tests/testing/paths.h"
#include "tests/testing/temp_folder.h"

namespace salamander::model {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using ::testing::HasSubstr;

// A folder of its own per test, with the config of the case "dense" and the given tensors.
class CheckpointTest : public ::testing::Test {
 protected:
  CheckpointTest() : config_(json::parse(*ReadFile(testing::TestData("golden/dense/config.json")))) {
    golden_ = *SafetensorsFile::Open(testing::GoldenCheckpoint("dense") + "/model.safetensors");
    tensors_ = golden_->tensors();
  }

  absl::Status Open() {
    folder_.Write("config.json", config_.dump());
    return Checkpoint::Open(folder_.path()).status();
  }
  absl::Status OpenSingle() {
    EXPECT_TRUE(WriteSafetensors(folder_.file("model.safetensors"), tensors_).ok());
    return Open();
  }
  // Two shards and their index, which `change` may spoil.
  absl::Status OpenSharded(const std::function<void(json& weight_map)>& change) {
    std::map<std::string, TensorView> shards[2];
    json map = json::object();
    for (const auto& [name, view] : tensors_) {
      const int shard = name.find("layers.3") == std::string::npos ? 0 : 1;
      shards[shard][name] = view;
      map[name] = kShards[shard];
    }
    for (int i : {0, 1}) EXPECT_TRUE(WriteSafetensors(folder_.file(kShards[i]), shards[i]).ok());
    change(map);
    folder_.Write("model.safetensors.index.json", json{{"metadata", {{"total_size", 1}}}, {"weight_map", map}}.dump());
    return Open();
  }
  void ExpectRefused(const absl::Status& status, const std::vector<std::string>& words) {
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    for (const std::string& word : words) EXPECT_THAT(std::string(status.message()), HasSubstr(word));
  }

  static constexpr const char* kShards[] = {"model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"};
  testing::TempFolder folder_;
  json config_;
  std::unique_ptr<SafetensorsFile> golden_;
  std::map<std::string, TensorView> tensors_;
};

TEST_F(CheckpointTest, OpensASingleFile) {
  ASSERT_TRUE(OpenSingle().ok()) << OpenSingle();
  const auto checkpoint = Checkpoint::Open(folder_.path() + "/");
  EXPECT_EQ((*checkpoint)->name(), fs::path(folder_.path()).filename());
  EXPECT_EQ((*checkpoint)->fingerprint().size(), 32u);
  EXPECT_TRUE((*checkpoint)->has("lm_head.weight"));
  EXPECT_EQ((*checkpoint)->tensor("model.norm.weight").bytes, 128 * 2);
}

TEST_F(CheckpointTest, ShardedIsTheSameCheckpoint) {
  ASSERT_TRUE(OpenSharded([](json&) {}).ok()) << OpenSharded([](json&) {});
  const auto sharded = Checkpoint::Open(folder_.path());
  const auto single = Checkpoint::Open(testing::GoldenCheckpoint("dense"));
  EXPECT_EQ((*sharded)->fingerprint(), (*single)->fingerprint());
}

TEST_F(CheckpointTest, FingerprintTellsConfigurationsApart) {
  ASSERT_TRUE(OpenSingle().ok());
  const std::string before = (*Checkpoint::Open(folder_.path()))->fingerprint();
  config_["rope_theta"] = 20000.0;
  ASSERT_TRUE(Open().ok());
  EXPECT_NE((*Checkpoint::Open(folder_.path()))->fingerprint(), before);
}

TEST_F(CheckpointTest, RefusesAMissingTensor) {
  tensors_.erase("model.layers.3.self_attn.o_gate.weight");
  ExpectRefused(OpenSingle(), {"model.layers.3.self_attn.o_gate.weight", "expected [256,128]", "not found"});
}

TEST_F(CheckpointTest, RefusesASurplusTensor) {
  tensors_["model.layers.6.mlp.up_proj.weight"] = tensors_["model.layers.5.mlp.up_proj.weight"];
  ExpectRefused(OpenSingle(), {"model.layers.6.mlp.up_proj.weight", "not expected", "found [320,128]"});
}

TEST_F(CheckpointTest, RefusesAnotherShape) {
  tensors_["model.layers.1.mlp.down_proj.weight"].shape = {320, 128};
  ExpectRefused(OpenSingle(), {"model.layers.1.mlp.down_proj.weight", "expected [128,320]", "found [320,128]"});
}

TEST_F(CheckpointTest, RefusesAnotherElementType) {
  TensorView& norm = tensors_["model.norm.weight"];
  norm = {TensorType::kI32, {128}, tensors_["lm_head.weight"].data, 512};
  ExpectRefused(OpenSingle(), {"model.norm.weight", "BF16 or F32", "I32"});
}

TEST_F(CheckpointTest, TiedEmbeddingsHaveNoHead) {
  config_["tie_word_embeddings"] = true;
  ExpectRefused(OpenSingle(), {"lm_head.weight", "not expected"});
  tensors_.erase("lm_head.weight");
  EXPECT_TRUE(OpenSingle().ok()) << OpenSingle();
}

TEST_F(CheckpointTest, BiasesAreExpectedWhereTheConfigurationSaysSo) {
  config_["attention_bias"] = true;
  ExpectRefused(OpenSingle(), {"model.layers.0.self_attn.k_proj.bias", "expected [64]", "not found"});
  const std::byte* zeros = tensors_["lm_head.weight"].data;
  for (int i = 0; i < 6; ++i) {
    const std::string layer = "model.layers." + std::to_string(i) + ".self_attn.";
    const bool sparse = i == 0 || i == 3;
    const int64_t query = sparse ? 256 : 128, key = sparse ? 64 : 128;
    tensors_[layer + "q_proj.bias"] = {TensorType::kF32, {query}, zeros, query * 4};
    tensors_[layer + "k_proj.bias"] = {TensorType::kF32, {key}, zeros, key * 4};
    tensors_[layer + "v_proj.bias"] = {TensorType::kF32, {key}, zeros, key * 4};
    tensors_[layer + "o_proj.bias"] = {TensorType::kF32, {128}, zeros, 128 * 4};
  }
  EXPECT_TRUE(OpenSingle().ok()) << OpenSingle();
}

TEST_F(CheckpointTest, ADummyNeedsItsConfigurationOnly) {
  ASSERT_TRUE(OpenSingle().ok());
  const std::string real = (*Checkpoint::Open(folder_.path()))->fingerprint();
  std::filesystem::remove(folder_.file("model.safetensors"));
  EXPECT_FALSE(Open().ok());
  const auto dummy = Checkpoint::Open(folder_.path(), LoadFormat::kDummy);
  ASSERT_TRUE(dummy.ok()) << dummy.status();
  for (const auto& [name, view] : tensors_) {
    ASSERT_TRUE((*dummy)->has(name));
    EXPECT_EQ((*dummy)->tensor(name).shape, view.shape);
    EXPECT_EQ((*dummy)->tensor(name).elements(), view.elements()) << name;
    EXPECT_EQ((*dummy)->tensor(name).data, nullptr);
  }
  EXPECT_NE((*dummy)->fingerprint(), real);
  EXPECT_EQ(ParseLoadFormat("gguf").status().message(), "load_format must be safetensors or dummy, got \"gguf\"");
}

TEST_F(CheckpointTest, RefusesATruncatedFile) {
  ASSERT_TRUE(OpenSingle().ok());
  const fs::path file = folder_.file("model.safetensors");
  fs::resize_file(file, fs::file_size(file) - 1);
  ExpectRefused(Open(), {"model.safetensors", "tensor"});
}

TEST_F(CheckpointTest, MissingFilesAreNamed) {
  EXPECT_THAT(std::string(Checkpoint::Open("/nonexistent").status().message()), HasSubstr("/nonexistent/config.json"));
  const absl::Status status = Open();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()), HasSubstr("model.safetensors"));
}

TEST_F(CheckpointTest, ConfigFaultsNameTheFolder) {
  config_["mixer_types"][0] = "mamba";
  ExpectRefused(OpenSingle(), {folder_.path(), "mixer_types[0]", "mamba"});
}

TEST_F(CheckpointTest, RefusesAnIndexThatIsMalformed) {
  folder_.Write("model.safetensors.index.json", "{");
  ExpectRefused(Open(), {"index.json", "JSON"});
  folder_.Write("model.safetensors.index.json", R"({"weight_map":[]})");
  ExpectRefused(Open(), {"weight_map"});
  folder_.Write("model.safetensors.index.json", R"({"weight_map":{"model.norm.weight":"../elsewhere"}})");
  ExpectRefused(Open(), {"model.norm.weight", "file name", "../elsewhere"});
}

TEST_F(CheckpointTest, RefusesAnIndexThatDisagreesWithItsShards) {
  ExpectRefused(OpenSharded([](json& map) { map["model.norm.weight"] = kShards[1]; }),
                {kShards[0], "model.norm.weight", "not expected here"});
  ExpectRefused(OpenSharded([](json& map) { map["model.extra.weight"] = kShards[1]; }),
                {kShards[1], "model.extra.weight", "not found"});
  ExpectRefused(OpenSharded([](json& map) { map.erase("model.norm.weight"); }),
                {kShards[0], "model.norm.weight", "not expected here"});
}

TEST_F(CheckpointTest, RefusesAMissingShard) {
  ASSERT_TRUE(OpenSharded([](json&) {}).ok());
  fs::remove(folder_.file(kShards[1]));
  const absl::Status status = Open();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()), HasSubstr(kShards[1]));
}

}  // namespace
}  // namespace salamander::model
