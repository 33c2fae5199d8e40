#include "common/model/checkpoint.h"

#include <xxhash.h>

#include <filesystem>
#include <functional>
#include <numeric>
#include <set>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/base/status_macros.h"
#include "common/model/json_fields.h"
#include "common/model/read_file.h"
#include "nlohmann/json.hpp"

namespace salamander::model {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using Tensors = std::map<std::string, TensorView>;

constexpr char kSingleFile[] = "model.safetensors";
constexpr char kIndexFile[] = "model.safetensors.index.json";

std::string ShowShape(const std::vector<int64_t>& shape) { return absl::StrCat("[", absl::StrJoin(shape, ","), "]"); }

// Which tensors the index says are in which file.
absl::StatusOr<std::map<std::string, std::set<std::string>>> ReadIndex(const fs::path& path) {
  ASSIGN_OR_RETURN(const std::string text, ReadFile(path.string()));
  const json index = ParseJson(text);
  const auto refuse = [&](const std::string& what) {
    return absl::InvalidArgumentError(absl::StrCat(path.string(), ": ", what));
  };
  if (!index.is_object()) return refuse("expected a JSON object");
  const auto map = index.find("weight_map");
  if (map == index.end() || !map->is_object()) return refuse("weight_map: expected an object from tensor to file");
  std::map<std::string, std::set<std::string>> files;
  for (const auto& [tensor, file] : map->items()) {
    const bool plain = file.is_string() && fs::path(file.get<std::string>()).filename() == file.get<std::string>() &&
                       !file.get<std::string>().empty();
    if (!plain) {
      return refuse(absl::StrCat("weight_map[", Show(json(tensor)), "]: expected a file name, found ", Show(file)));
    }
    files[file.get<std::string>()].insert(tensor);
  }
  return files;
}

// A shard must hold the tensors that the index gives it, and no other.
absl::Status CheckShard(const std::string& path, const Tensors& found, const std::set<std::string>& expected) {
  for (const std::string& name : expected) {
    if (!found.contains(name)) {
      return absl::InvalidArgumentError(
          absl::StrCat(path, ": tensor ", name, ": expected here by ", kIndexFile, ", not found"));
    }
  }
  for (const auto& [name, view] : found) {
    if (!expected.contains(name)) {
      return absl::InvalidArgumentError(
          absl::StrCat(path, ": tensor ", Show(json(name)), ": not expected here by ", kIndexFile));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckTensors(const Tensors& found, const Config& config) {
  const auto expected = ExpectedTensors(config);
  for (const auto& [name, shape] : expected) {
    const auto at = found.find(name);
    if (at == found.end()) {
      return absl::InvalidArgumentError(absl::StrCat("tensor ", name, ": expected ", ShowShape(shape), ", not found"));
    }
    if (at->second.shape != shape) {
      return absl::InvalidArgumentError(
          absl::StrCat("tensor ", name, ": expected ", ShowShape(shape), ", found ", ShowShape(at->second.shape)));
    }
    if (at->second.type == TensorType::kI32) {
      return absl::InvalidArgumentError(absl::StrCat("tensor ", name, ": expected BF16 or F32, found I32"));
    }
  }
  for (const auto& [name, view] : found) {
    if (!expected.contains(name)) {
      return absl::InvalidArgumentError(absl::StrCat(
          "tensor ", Show(json(name)), ": not expected by the configuration, found ", ShowShape(view.shape)));
    }
  }
  return absl::OkStatus();
}

Tensors DummyTensors(const Config& config) {
  Tensors tensors;
  for (const auto& [name, shape] : ExpectedTensors(config)) {
    const int64_t elements = std::accumulate(shape.begin(), shape.end(), int64_t{1}, std::multiplies<>());
    tensors[name] = {.type = TensorType::kBF16, .shape = shape, .bytes = 2 * elements};
  }
  return tensors;
}

std::string Fingerprint(const std::string& config_text, const Tensors& tensors, LoadFormat format) {
  // nlohmann's objects are sorted by key: the same settings give the same text.
  std::string all = ParseJson(config_text).dump();
  for (const auto& [name, view] : tensors) {
    absl::StrAppend(&all, "\n", name, " ", static_cast<int>(view.type), " ", ShowShape(view.shape));
  }
  if (format == LoadFormat::kDummy) absl::StrAppend(&all, "\ndummy");
  const XXH128_hash_t hash = XXH3_128bits(all.data(), all.size());
  return absl::StrCat(absl::Hex(hash.high64, absl::kZeroPad16), absl::Hex(hash.low64, absl::kZeroPad16));
}

}  // namespace

absl::StatusOr<LoadFormat> ParseLoadFormat(std::string_view text) {
  if (text == "safetensors") return LoadFormat::kSafetensors;
  if (text == "dummy") return LoadFormat::kDummy;
  return absl::InvalidArgumentError(
      absl::StrCat("load_format must be safetensors or dummy, got \"", std::string(text), "\""));
}

absl::StatusOr<std::unique_ptr<Checkpoint>> Checkpoint::Open(const std::string& folder, LoadFormat format) {
  const fs::path root(folder);
  std::unique_ptr<Checkpoint> checkpoint(new Checkpoint);
  checkpoint->folder_ = folder;
  ASSIGN_OR_RETURN(const std::string config_text, ReadFile((root / "config.json").string()));
  absl::StatusOr<Config> config = ParseConfig(config_text);
  RETURN_IF_ERROR(Annotate(config.status(), folder));
  checkpoint->config_ = *std::move(config);

  if (format == LoadFormat::kDummy) {
    checkpoint->tensors_ = DummyTensors(checkpoint->config_);
  } else if (fs::exists(root / kSingleFile) || !fs::exists(root / kIndexFile)) {
    ASSIGN_OR_RETURN(auto file, SafetensorsFile::Open((root / kSingleFile).string()));
    checkpoint->tensors_ = file->tensors();
    checkpoint->files_.push_back(std::move(file));
  } else {
    ASSIGN_OR_RETURN(const auto index, ReadIndex(root / kIndexFile));
    for (const auto& [name, tensors] : index) {
      const std::string path = (root / name).string();
      ASSIGN_OR_RETURN(auto file, SafetensorsFile::Open(path));
      RETURN_IF_ERROR(CheckShard(path, file->tensors(), tensors));
      checkpoint->tensors_.insert(file->tensors().begin(), file->tensors().end());
      checkpoint->files_.push_back(std::move(file));
    }
  }
  RETURN_IF_ERROR(Annotate(CheckTensors(checkpoint->tensors_, checkpoint->config_), folder));
  checkpoint->fingerprint_ = Fingerprint(config_text, checkpoint->tensors_, format);
  return checkpoint;
}

const TensorView& Checkpoint::tensor(const std::string& name) const { return tensors_.at(name); }

std::string Checkpoint::name() const {
  std::error_code error;
  const fs::path whole = fs::weakly_canonical(folder_, error);
  return (error ? fs::path(folder_) : whole).filename().string();
}

}  // namespace salamander::model
