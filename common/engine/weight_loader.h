// Brings a checkpoint's tensors into a backend's form: matrices fused and prepared, norms and biases as float32.
// Used by Model::Load only.
#ifndef SALAMANDER_COMMON_ENGINE_WEIGHT_LOADER_H_
#define SALAMANDER_COMMON_ENGINE_WEIGHT_LOADER_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/base/memory_ledger.h"
#include "common/engine/model.h"
#include "common/model/checkpoint.h"
#include "kernels/ops.h"

namespace salamander::engine {

class WeightLoader {
 public:
  // All outlive the loader.
  WeightLoader(const model::Checkpoint& checkpoint, kernels::Ops& ops, MemoryLedger& ledger)
      : checkpoint_(checkpoint), ops_(ops), ledger_(ledger) {}

  absl::StatusOr<LayerWeights> LoadLayer(int64_t layer);
  // `names` without ".weight", stacked along output features in this order.
  absl::StatusOr<std::unique_ptr<kernels::Weight>> LoadMatrix(const std::vector<std::string>& names);
  absl::StatusOr<const float*> LoadVector(const std::string& tensor);

  // What was loaded: the vectors that LayerWeights point into, and the ledger's holds of the matrices.
  std::vector<DeviceBuffer> TakeVectors() { return std::move(vectors_); }
  std::vector<MemoryLedger::Hold> TakeHolds() { return std::move(holds_); }

 private:
  // The biases of the parts one after the other, zeros for a part without one; null if none has one.
  absl::StatusOr<const float*> LoadBias(const std::vector<std::string>& names);
  // Null if the checkpoint has no such tensor.
  absl::StatusOr<const float*> LoadOptional(const std::string& tensor);
  absl::StatusOr<const float*> Upload(const std::vector<float>& values);

  const model::Checkpoint& checkpoint_;
  kernels::Ops& ops_;
  MemoryLedger& ledger_;
  std::vector<DeviceBuffer> vectors_;
  std::vector<MemoryLedger::Hold> holds_;
};

}  // namespace salamander::engine

#endif  // SALAMANDER_COMMON_ENGINE_WEIGHT_LOADER_H_
