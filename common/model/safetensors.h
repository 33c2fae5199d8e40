// Reading (memory-mapped) and writing of the safetensors format.
#ifndef SALAMANDER_COMMON_MODEL_SAFETENSORS_H_
#define SALAMANDER_COMMON_MODEL_SAFETENSORS_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace salamander::model {

enum class TensorType { kF32, kBF16, kI32 };

struct TensorView {
  TensorType type = TensorType::kF32;
  std::vector<int64_t> shape;
  const std::byte* data = nullptr;
  int64_t bytes = 0;

  int64_t elements() const;
};

// One mapped file. Views live as long as it does.
class SafetensorsFile {
 public:
  // INVALID_ARGUMENT naming file, tensor and fault: header not JSON or longer than the file, data out of the file,
  // overlapping or with holes, bytes that do not fit the shape, unknown element type.
  static absl::StatusOr<std::unique_ptr<SafetensorsFile>> Open(const std::string& path);
  ~SafetensorsFile();
  SafetensorsFile(const SafetensorsFile&) = delete;
  SafetensorsFile& operator=(const SafetensorsFile&) = delete;

  const std::map<std::string, TensorView>& tensors() const { return tensors_; }

 private:
  SafetensorsFile() = default;
  void* map_ = nullptr;
  size_t map_bytes_ = 0;
  std::map<std::string, TensorView> tensors_;
};

// Writes through a temporary file and renames, so that a reader never sees half a file.
absl::Status WriteSafetensors(const std::string& path, const std::map<std::string, TensorView>& tensors);

}  // namespace salamander::model

#endif  // SALAMANDER_COMMON_MODEL_SAFETENSORS_H_
