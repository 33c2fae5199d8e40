// A checkpoint's weights on a device, and the sizes derived from its configuration. Immutable after Load.
#ifndef SALAMANDER_COMMON_ENGINE_MODEL_H_
#define SALAMANDER_COMMON_ENGINE_MODEL_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/base/memory_ledger.h"
#include "common/model/checkpoint.h"
#include "kernels/ops.h"

namespace salamander::engine {

// Device memory that frees itself and its place in the ledger.
class DeviceBuffer {
 public:
  static absl::StatusOr<DeviceBuffer> Allocate(kernels::Ops& ops, MemoryLedger& ledger, MemoryOwner owner,
                                               int64_t bytes);
  DeviceBuffer() = default;
  DeviceBuffer(DeviceBuffer&& other) noexcept;
  DeviceBuffer& operator=(DeviceBuffer&& other) noexcept;
  ~DeviceBuffer();

  void* data() const { return data_; }
  template <typename T>
  T* as() const {
    return static_cast<T*>(data_);
  }
  int64_t bytes() const { return hold_.bytes(); }

 private:
  kernels::Ops* ops_ = nullptr;
  void* data_ = nullptr;
  MemoryLedger::Hold hold_;
};

// Host memory that results are fastest copied to. Outlived by its Ops.
class HostBuffer {
 public:
  static absl::StatusOr<HostBuffer> Allocate(kernels::Ops& ops, int64_t bytes);
  HostBuffer() = default;

  template <typename T>
  T* as() const {
    return static_cast<T*>(data_.get());
  }

 private:
  std::unique_ptr<void, std::function<void(void*)>> data_;
};

struct LayerWeights {
  std::unique_ptr<kernels::Weight> projection;  // sparse: q·k·v·gate; lightning: q·k·v·z, stacked
  std::unique_ptr<kernels::Weight> output;      // o_proj
  std::unique_ptr<kernels::Weight> gate_up;
  std::unique_ptr<kernels::Weight> down;
  // float32 on the device; null where the model has none.
  const float* input_norm = nullptr;
  const float* post_attention_norm = nullptr;
  const float* q_norm = nullptr;
  const float* k_norm = nullptr;
  const float* o_norm = nullptr;
  const float* projection_bias = nullptr;
  const float* output_bias = nullptr;
};

// All of a checkpoint's weights on a device. Freed with the last Model that has them.
struct ModelWeights {
  std::vector<MemoryLedger::Hold> holds;
  std::vector<DeviceBuffer> vectors;  // norms and biases
  std::vector<LayerWeights> layers;
  std::unique_ptr<kernels::Weight> embedding, lm_head;  // lm_head null: tied
  const float* final_norm = nullptr;
};

class Model {
 public:
  static absl::StatusOr<std::unique_ptr<Model>> Load(const model::Checkpoint& checkpoint, kernels::Ops* ops,
                                                     MemoryLedger* ledger);
  // The same weights for another engine thread of this process: `ops` is of the same device. The Ops that loaded the
  // weights outlives all.
  std::unique_ptr<Model> Share(kernels::Ops* ops) const;

  const model::Config& config() const { return config_; }
  kernels::Ops& ops() const { return *ops_; }
  const std::string& fingerprint() const { return fingerprint_; }

  int64_t layers() const { return static_cast<int64_t>(config_.layers.size()); }
  bool is_sparse(int64_t layer) const { return config_.layers[layer] == model::LayerKind::kSparse; }
  const LayerWeights& layer(int64_t layer) const { return weights_->layers[layer]; }
  const kernels::Weight& embedding() const { return *weights_->embedding; }
  const kernels::Weight& lm_head() const { return weights_->lm_head ? *weights_->lm_head : *weights_->embedding; }
  const float* final_norm() const { return weights_->final_norm; }
  const kernels::SparseShape& sparse_shape() const { return sparse_; }
  const kernels::LightningShape& lightning_shape() const { return lightning_; }

  // Sizes that reservations, manifests and registrations are computed from.
  int64_t page_bytes() const { return sparse_.kv.page_bytes(); }
  int64_t state_bytes() const;  // of one lightning layer
  // What Sequence::Create takes for a sequence of `tokens`: pages of all sparse layers, states of all lightning layers.
  int64_t SequenceBytes(int64_t tokens) const;

 private:
  Model() = default;
  model::Config config_;
  std::string fingerprint_;
  kernels::Ops* ops_ = nullptr;
  std::shared_ptr<const ModelWeights> weights_;
  kernels::SparseShape sparse_;
  kernels::LightningShape lightning_;
};

}  // namespace salamander::engine

#endif  // SALAMANDER_COMMON_ENGINE_MODEL_H_
