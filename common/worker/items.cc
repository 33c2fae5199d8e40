#include "common/worker/items.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "kernels/kv_layout.h"

namespace salamander::worker {

stream::LayerKinds SparseLayers(const engine::Model& model) {
  stream::LayerKinds sparse(model.layers());
  for (int64_t layer = 0; layer < model.layers(); ++layer) sparse[layer] = model.is_sparse(layer);
  return sparse;
}

stream::ItemShape ShapeOf(const engine::Model& model, v1::ItemKind kind) {
  constexpr int64_t kFloatBytes = sizeof(float);
  const kernels::KvLayout& kv = model.sparse_shape().kv;
  const int64_t head_dim = model.lightning_shape().head_dim;
  switch (kind) {
    case v1::ITEM_KIND_KEYS_VALUES:
      return {.type = kv.type == kernels::DType::kFloat32 ? v1::ELEMENT_TYPE_FLOAT32 : v1::ELEMENT_TYPE_BFLOAT16,
              .tile_bytes = kv.tile_bytes()};
    case v1::ITEM_KIND_STATE:
      return {.type = v1::ELEMENT_TYPE_FLOAT32, .tile_bytes = head_dim * head_dim * kFloatBytes};
    default:
      return {.type = v1::ELEMENT_TYPE_FLOAT32, .tile_bytes = model.config().hidden_size * kFloatBytes};
  }
}

absl::StatusOr<int> FindPrefillWorker(const v1::Plan& plan, InstanceId instance) {
  for (int i = 0; i < plan.prefill_workers_size(); ++i) {
    if (plan.prefill_workers(i).instance_id() == instance) return i;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("plan.prefill_workers: this worker's instance ", IdToString(instance), " is not in it"));
}

absl::Status CheckRequestPlan(const v1::Plan& plan) {
  RETURN_IF_ERROR(stream::CheckPlan(plan));
  if (plan.codec() != v1::CODEC_RAW && plan.codec() != v1::CODEC_LOSSLESS) {
    return absl::InvalidArgumentError(
        absl::StrCat("plan.codec: ", static_cast<int>(plan.codec()), " is neither raw (1) nor lossless (2)"));
  }
  if (plan.decode_worker().instance_id() == 0) {
    return absl::InvalidArgumentError("plan.decode_worker.instance_id: not set");
  }
  return absl::OkStatus();
}

std::vector<stream::ExpectedItem> PlaceItems(const v1::Plan& plan, int worker, engine::Sequence& sequence,
                                             stream::ItemMemory* memory, absl::Span<float> hidden) {
  const engine::Model& model = sequence.model();
  std::vector<stream::ExpectedItem> expected;
  for (const stream::ItemId& id : stream::ExpectedItems(plan, SparseLayers(model), worker)) {
    stream::ExpectedItem item{.id = id, .shape = ShapeOf(model, id.kind), .into = {}, .memory = memory};
    switch (id.kind) {
      case v1::ITEM_KIND_KEYS_VALUES:
        item.into = sequence.KvBytes(id.layer, plan.spans(id.span).begin(), plan.spans(id.span).end());
        break;
      case v1::ITEM_KIND_STATE:
        item.into = {sequence.State(id.layer)};
        break;
      default:
        item.memory = nullptr;
        item.into = {absl::MakeSpan(reinterpret_cast<std::byte*>(hidden.data()), hidden.size() * sizeof(float))};
    }
    expected.push_back(std::move(item));
  }
  return expected;
}

}  // namespace salamander::worker
