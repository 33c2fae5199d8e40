#include "tests/testing/make_checkpoint.h"

#include <unistd.h>
#include <xxhash.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/base/status_macros.h"
#include "common/model/checkpoint.h"
#include "common/model/read_file.h"
#include "tests/testing/paths.h"

namespace salamander::testing {
namespace {

struct GoldenCase {
  const char* name;
  uint64_t seed;
  const char* hash;  // of the oracle's model.safetensors
};
constexpr GoldenCase kGoldenCases[] = {
    {"dense", 11, "39ca6587be0533da5bfd5cd156956bf8"},    {"sparse", 11, "39ca6587be0533da5bfd5cd156956bf8"},
    {"crossing", 12, "b0c250b9956fe0112b708c60bda86212"}, {"wide", 13, "d7f19f874d114e38f5c4039b72fa0aa1"},
    {"odd", 14, "dce64ef0a8f4850998d96c928c31ef3d"},
};

uint16_t ToBf16(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  return static_cast<uint16_t>((bits + ((bits >> 16) & 1) + 0x7FFF) >> 16);
}

// Uniform in [-1, 1): SplitMix64 from an FNV-1a hash of "seed/name".
class Uniform {
 public:
  Uniform(uint64_t seed, const std::string& name) {
    for (const unsigned char byte : absl::StrCat(seed, "/", name)) state_ = (state_ ^ byte) * 1099511628211u;
  }
  float Next() {
    uint64_t z = state_ += 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    z = z ^ (z >> 31);
    return static_cast<float>(2.0 * (static_cast<double>(z >> 40) / (1 << 24)) - 1.0);
  }

 private:
  uint64_t state_ = 1469598103934665603u;
};

// The oracle's order of tensors in the file.
std::vector<std::string> OracleOrder(const model::Config& config) {
  std::vector<std::string> names = {"model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"};
  for (size_t i = 0; i < config.layers.size(); ++i) {
    for (const char* part :
         {"input_layernorm", "post_attention_layernorm", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj",
          "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "self_attn.o_gate",
          "self_attn.q_norm", "self_attn.k_norm", "self_attn.o_norm", "self_attn.z_proj"}) {
      names.push_back(absl::StrCat("model.layers.", i, ".", part, ".weight"));
    }
  }
  const auto expected = model::ExpectedTensors(config);
  std::erase_if(names, [&](const std::string& name) { return !expected.contains(name); });
  return names;
}

// BF16 bits of one tensor. Float arithmetic as numpy's on float32 arrays.
std::vector<uint16_t> Weights(const std::string& name, const std::vector<int64_t>& shape, uint64_t seed,
                              const model::Config& config) {
  int64_t count = 1;
  for (const int64_t size : shape) count *= size;
  std::vector<uint16_t> bits(count);
  const auto fan_in = static_cast<float>(std::sqrt(static_cast<double>(shape.back())));
  const bool query_or_key = absl::EndsWith(name, "q_proj.weight") || absl::EndsWith(name, "k_proj.weight");
  Uniform uniform(seed, name);
  for (uint16_t& out : bits) {
    const float u = uniform.Next();
    if (shape.size() == 1) {
      out = ToBf16(1.0f + 0.1f * u);
    } else if (absl::EndsWith(name, "embed_tokens.weight")) {
      out = ToBf16(u / static_cast<float>(config.scale_emb));
    } else {
      out = ToBf16(u * (query_or_key ? 3.0f : 1.7f) / fan_in);
    }
  }
  return bits;
}

// Not WriteSafetensors: the oracle's files keep an order of their own.
std::string OracleFile(const model::Config& config, uint64_t seed) {
  const auto shapes = model::ExpectedTensors(config);
  std::string header = R"({"__metadata__":{"format":"pt"})", data;
  for (const std::string& name : OracleOrder(config)) {
    const auto weights = Weights(name, shapes.at(name), seed, config);
    const size_t begin = data.size();
    data.append(reinterpret_cast<const char*>(weights.data()), weights.size() * sizeof(uint16_t));
    absl::StrAppend(&header, R"(,")", name, R"(":{"dtype":"BF16","shape":[)", absl::StrJoin(shapes.at(name), ","),
                    R"(],"data_offsets":[)", begin, ",", data.size(), "]}");
  }
  header += "}";
  header.append((8 - header.size() % 8) % 8, ' ');
  const uint64_t length = header.size();
  return std::string(reinterpret_cast<const char*>(&length), sizeof(length)) + header + data;
}

absl::Status WriteWhole(const std::string& path, const std::string& content) {
  static std::atomic<int> count = 0;
  const std::string temporary = absl::StrCat(path, ".", getpid(), ".", count++);
  std::ofstream file(temporary, std::ios::binary);
  file << content;
  file.close();
  if (!file || std::rename(temporary.c_str(), path.c_str()) != 0) {
    return absl::InternalError(absl::StrCat(path, " cannot be written"));
  }
  return absl::OkStatus();
}

absl::Status EnsureGolden(const std::string& name, const std::string& folder) {
  const auto* golden = std::find_if(std::begin(kGoldenCases), std::end(kGoldenCases),
                                    [&](const GoldenCase& candidate) { return name == candidate.name; });
  if (golden == std::end(kGoldenCases)) return absl::NotFoundError("no such golden case");
  const std::string weights = folder + "/model.safetensors";
  ASSIGN_OR_RETURN(const std::string config, model::ReadFile(TestData("golden/" + name + "/config.json")));
  const auto made = model::ReadFile(folder + "/config.json");
  if (made.ok() && *made == config && FileHash(weights) == golden->hash) return absl::OkStatus();
  RETURN_IF_ERROR(MakeCheckpoint(config, golden->seed, folder));
  if (FileHash(weights) == golden->hash) return absl::OkStatus();
  return absl::InternalError("model.safetensors differs from the oracle's");
}

}  // namespace

absl::Status MakeCheckpoint(const std::string& config_json, uint64_t seed, const std::string& folder) {
  ASSIGN_OR_RETURN(const model::Config config, model::ParseConfig(config_json));
  if (config.attention_bias) return absl::UnimplementedError("the oracle has no biases");
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  RETURN_IF_ERROR(WriteWhole(folder + "/config.json", config_json));
  return WriteWhole(folder + "/model.safetensors", OracleFile(config, seed));
}

std::string GoldenCheckpoint(const std::string& name) {
  const std::string folder = BinDir() + "/golden/" + name;
  if (const absl::Status status = EnsureGolden(name, folder); !status.ok()) {
    std::fprintf(stderr, "golden checkpoint %s: %s\n", name.c_str(), status.ToString().c_str());
    std::abort();
  }
  return folder;
}

std::string FileHash(const std::string& path) {
  const auto content = model::ReadFile(path);
  if (!content.ok()) return "";
  const XXH128_hash_t hash = XXH3_128bits(content->data(), content->size());
  return absl::StrCat(absl::Hex(hash.high64, absl::kZeroPad16), absl::Hex(hash.low64, absl::kZeroPad16));
}

}  // namespace salamander::testing
