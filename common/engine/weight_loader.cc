#include "common/engine/weight_loader.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/engine/float_convert.h"

namespace salamander::engine {
namespace {

kernels::DType ElementType(const model::TensorView& tensor) {
  return tensor.type == model::TensorType::kBF16 ? kernels::DType::kBFloat16 : kernels::DType::kFloat32;
}

// FNV-1a: which made-up numbers a dummy's tensor has.
uint64_t NameHash(const std::string& name) {
  uint64_t hash = 0xcbf29ce484222325u;
  for (const char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  return hash;
}

}  // namespace

absl::StatusOr<LayerWeights> WeightLoader::LoadLayer(int64_t layer) {
  const model::Config& config = checkpoint_.config();
  const bool sparse = config.layers[layer] == model::LayerKind::kSparse;
  const std::string prefix = absl::StrCat("model.layers.", layer, ".");
  const std::string attention = absl::StrCat(prefix, "self_attn.");

  std::vector<std::string> parts = {absl::StrCat(attention, "q_proj"), absl::StrCat(attention, "k_proj"),
                                    absl::StrCat(attention, "v_proj")};
  if (sparse && config.attn_use_output_gate) parts.push_back(absl::StrCat(attention, "o_gate"));
  if (!sparse && config.use_output_gate) parts.push_back(absl::StrCat(attention, "z_proj"));
  const std::vector<std::string> output = {absl::StrCat(attention, "o_proj")};

  LayerWeights weights;
  ASSIGN_OR_RETURN(weights.projection, LoadMatrix(parts));
  ASSIGN_OR_RETURN(weights.projection_bias, LoadBias(parts));
  ASSIGN_OR_RETURN(weights.output, LoadMatrix(output));
  ASSIGN_OR_RETURN(weights.output_bias, LoadBias(output));
  ASSIGN_OR_RETURN(weights.gate_up,
                   LoadMatrix({absl::StrCat(prefix, "mlp.gate_proj"), absl::StrCat(prefix, "mlp.up_proj")}));
  ASSIGN_OR_RETURN(weights.down, LoadMatrix({absl::StrCat(prefix, "mlp.down_proj")}));
  ASSIGN_OR_RETURN(weights.input_norm, LoadVector(absl::StrCat(prefix, "input_layernorm.weight")));
  ASSIGN_OR_RETURN(weights.post_attention_norm, LoadVector(absl::StrCat(prefix, "post_attention_layernorm.weight")));
  ASSIGN_OR_RETURN(weights.q_norm, LoadOptional(absl::StrCat(attention, "q_norm.weight")));
  ASSIGN_OR_RETURN(weights.k_norm, LoadOptional(absl::StrCat(attention, "k_norm.weight")));
  ASSIGN_OR_RETURN(weights.o_norm, LoadOptional(absl::StrCat(attention, "o_norm.weight")));
  return weights;
}

absl::StatusOr<std::unique_ptr<kernels::Weight>> WeightLoader::LoadMatrix(const std::vector<std::string>& names) {
  std::vector<kernels::WeightPart> parts;
  for (const std::string& name : names) {
    const model::TensorView& tensor = checkpoint_.tensor(absl::StrCat(name, ".weight"));
    parts.push_back({tensor.data, ElementType(tensor), tensor.shape[0], tensor.shape[1], NameHash(name)});
  }
  absl::StatusOr<std::unique_ptr<kernels::Weight>> weight = ops_.PrepareWeight(parts);
  if (!weight.ok()) return Annotate(weight.status(), names[0]);
  ASSIGN_OR_RETURN(MemoryLedger::Hold hold, ledger_.Take(MemoryOwner::kWeights, (*weight)->bytes()));
  holds_.push_back(std::move(hold));
  return weight;
}

absl::StatusOr<const float*> WeightLoader::LoadVector(const std::string& tensor) {
  const model::TensorView& view = checkpoint_.tensor(tensor);
  std::vector<float> values(view.elements(), 1.0f);  // A dummy's norm.
  if (view.data != nullptr) ToFloats(view.data, ElementType(view), view.elements(), values.data());
  return Upload(values);
}

absl::StatusOr<const float*> WeightLoader::LoadOptional(const std::string& tensor) {
  if (!checkpoint_.has(tensor)) return nullptr;
  return LoadVector(tensor);
}

absl::StatusOr<const float*> WeightLoader::LoadBias(const std::vector<std::string>& names) {
  std::vector<float> values;
  bool any = false;
  for (const std::string& name : names) {
    const size_t at = values.size();
    values.resize(at + checkpoint_.tensor(absl::StrCat(name, ".weight")).shape[0], 0.0f);
    const std::string bias = absl::StrCat(name, ".bias");
    if (!checkpoint_.has(bias)) continue;
    const model::TensorView& view = checkpoint_.tensor(bias);
    if (view.data != nullptr) ToFloats(view.data, ElementType(view), view.elements(), values.data() + at);
    any = true;
  }
  if (!any) return nullptr;
  return Upload(values);
}

absl::StatusOr<const float*> WeightLoader::Upload(const std::vector<float>& values) {
  const int64_t bytes = static_cast<int64_t>(values.size() * sizeof(float));
  ASSIGN_OR_RETURN(DeviceBuffer buffer, DeviceBuffer::Allocate(ops_, ledger_, MemoryOwner::kWeights, bytes));
  RETURN_IF_ERROR(ops_.CopyToDevice(buffer.data(), values.data(), bytes));
  RETURN_IF_ERROR(ops_.Synchronize());  // `values` ends here.
  vectors_.push_back(std::move(buffer));
  return vectors_.back().as<const float>();
}

}  // namespace salamander::engine
