#include "decode_worker/capture.h"

#include <cstddef>
#include <map>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/engine/float_convert.h"
#include "common/model/safetensors.h"
#include "kernels/kv_layout.h"

namespace salamander::decode {
namespace {

using kernels::kBlockTokens;

class Capture {
 public:
  void Add(const std::string& name, std::vector<int64_t> shape, std::vector<float> values) {
    std::vector<float>& kept = memory_[name] = std::move(values);
    tensors_[name] = {.type = model::TensorType::kF32,
                      .shape = std::move(shape),
                      .data = reinterpret_cast<const std::byte*>(kept.data()),
                      .bytes = static_cast<int64_t>(kept.size() * sizeof(float))};
  }
  absl::Status Write(const std::string& path) const { return model::WriteSafetensors(path, tensors_); }

 private:
  std::map<std::string, std::vector<float>> memory_;
  std::map<std::string, model::TensorView> tensors_;
};

absl::Status AddKeysValues(engine::Sequence& sequence, int64_t layer, int64_t tokens, Capture& capture) {
  const kernels::KvLayout& kv = sequence.model().sparse_shape().kv;
  std::vector<std::byte> blocks;
  for (const absl::Span<std::byte>& run : sequence.KvBytes(layer, 0, tokens)) {
    const size_t end = blocks.size();
    blocks.resize(end + run.size());
    RETURN_IF_ERROR(sequence.model().ops().CopyToHost(blocks.data() + end, run.data(), run.size()));
  }
  RETURN_IF_ERROR(sequence.model().ops().Synchronize());
  std::vector<float> keys(tokens * kv.kv_heads * kv.head_dim), values(keys.size());
  for (int64_t token = 0; token < tokens; ++token) {
    const std::byte* block = blocks.data() + token / kBlockTokens * kv.block_bytes();
    const int64_t row = token % kBlockTokens * kv.row_bytes();
    for (int64_t head = 0; head < kv.kv_heads; ++head) {
      const int64_t to = (token * kv.kv_heads + head) * kv.head_dim;
      engine::ToFloats(block + kv.keys(0, head) + row, kv.type, kv.head_dim, &keys[to]);
      engine::ToFloats(block + kv.values(0, head) + row, kv.type, kv.head_dim, &values[to]);
    }
  }
  capture.Add(absl::StrCat("key.", layer), {tokens, kv.kv_heads, kv.head_dim}, std::move(keys));
  capture.Add(absl::StrCat("value.", layer), {tokens, kv.kv_heads, kv.head_dim}, std::move(values));
  return absl::OkStatus();
}

absl::Status AddState(engine::Sequence& sequence, int64_t layer, Capture& capture) {
  const kernels::LightningShape& shape = sequence.model().lightning_shape();
  const absl::Span<std::byte> bytes = sequence.State(layer);
  std::vector<float> state(bytes.size() / sizeof(float));
  RETURN_IF_ERROR(sequence.model().ops().CopyToHost(state.data(), bytes.data(), bytes.size()));
  RETURN_IF_ERROR(sequence.model().ops().Synchronize());
  capture.Add(absl::StrCat("state.", layer), {shape.heads, shape.head_dim, shape.head_dim}, std::move(state));
  return absl::OkStatus();
}

}  // namespace

absl::Status CaptureRequest(const std::string& folder, RequestId request, engine::Sequence& sequence, int64_t tokens,
                            absl::Span<const float> hidden) {
  Capture capture;
  for (int64_t layer = 0; layer < sequence.model().layers(); ++layer) {
    if (sequence.model().is_sparse(layer)) {
      RETURN_IF_ERROR(AddKeysValues(sequence, layer, tokens, capture));
    } else {
      RETURN_IF_ERROR(AddState(sequence, layer, capture));
    }
  }
  capture.Add("hidden", {static_cast<int64_t>(hidden.size())}, std::vector<float>(hidden.begin(), hidden.end()));
  return capture.Write(absl::StrCat(folder, "/", IdToString(request), ".safetensors"));
}

}  // namespace salamander::decode
