// A checkpoint folder: config.json and memory-mapped safetensors, every tensor checked against the configuration.
#ifndef SALAMANDER_COMMON_MODEL_CHECKPOINT_H_
#define SALAMANDER_COMMON_MODEL_CHECKPOINT_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "common/model/config.h"
#include "common/model/safetensors.h"

namespace salamander::model {

enum class LoadFormat {
  kSafetensors,
  kDummy,  // config.json alone: weights are made up where they are used, for measuring
};
// "safetensors" or "dummy", what --load_format takes.
absl::StatusOr<LoadFormat> ParseLoadFormat(std::string_view text);

class Checkpoint {
 public:
  // Refuses, naming tensor or key, what was expected and what was found: a missing or surplus tensor, a wrong shape or
  // element type, a truncated or malformed file, an index that does not agree with its shards. BF16 and F32 weights.
  static absl::StatusOr<std::unique_ptr<Checkpoint>> Open(const std::string& folder,
                                                          LoadFormat format = LoadFormat::kSafetensors);

  const Config& config() const { return config_; }
  // Exists: Open checked. Valid as long as the checkpoint. Of a dummy, BF16 without data.
  const TensorView& tensor(const std::string& name) const;
  bool has(const std::string& name) const { return tensors_.contains(name); }
  // 32 hexadecimal digits: hash of config.json (as parsed, key order free) and of every tensor's name, type and shape.
  // A dummy has another.
  const std::string& fingerprint() const { return fingerprint_; }
  const std::string& folder() const { return folder_; }
  // Last part of the folder's path.
  std::string name() const;

 private:
  Checkpoint() = default;
  std::string folder_;
  Config config_;
  std::string fingerprint_;
  std::vector<std::unique_ptr<SafetensorsFile>> files_;
  std::map<std::string, TensorView> tensors_;
};

// Name and shape of every tensor that a checkpoint of this configuration has.
std::map<std::string, std::vector<int64_t>> ExpectedTensors(const Config& config);

}  // namespace salamander::model

#endif  // SALAMANDER_COMMON_MODEL_CHECKPOINT_H_
