#include "decode_worker/tier_progress.h"

namespace salamander::decode {

TierProgress::TierProgress(const v1::Plan* plan, const stream::LayerKinds& sparse) : plan_(plan) {
  for (size_t layer = 0; layer < sparse.size(); ++layer) {
    if (sparse[layer]) layers_.push_back({.layer = static_cast<int64_t>(layer)});
  }
}

std::optional<TierProgress::Piece> TierProgress::Next(const std::function<bool(const stream::ItemId&)>& has) {
  for (size_t looked = 0; looked < layers_.size(); ++looked, next_ = (next_ + 1) % layers_.size()) {
    const Layer& layer = layers_[next_];
    if (layer.spans == plan_->spans_size()) continue;
    if (has({.kind = v1::ITEM_KIND_KEYS_VALUES, .layer = static_cast<int32_t>(layer.layer), .span = layer.spans})) {
      return Piece{.layer = layer.layer, .tokens = plan_->spans(layer.spans).end()};
    }
  }
  return std::nullopt;
}

void TierProgress::Advance() {
  ++layers_[next_].spans;
  next_ = (next_ + 1) % layers_.size();
}

}  // namespace salamander::decode
