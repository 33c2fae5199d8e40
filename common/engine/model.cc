#include "common/engine/model.h"

#include <utility>

#include "common/base/status_macros.h"
#include "common/engine/weight_loader.h"

namespace salamander::engine {
namespace {

kernels::SparseShape MakeSparseShape(const model::Config& config, kernels::DType type) {
  kernels::SparseShape shape;
  shape.heads = config.heads;
  shape.kv = {config.kv_heads, config.head_dim, type};
  shape.init_blocks = config.init_blocks;
  shape.local_blocks = config.local_blocks();
  shape.top_blocks = config.top_blocks();
  return shape;
}

kernels::LightningShape MakeLightningShape(const model::Config& config) {
  kernels::LightningShape shape;
  shape.heads = config.lightning_heads;
  shape.kv_heads = config.lightning_kv_heads;
  shape.head_dim = config.lightning_head_dim;
  shape.scale = static_cast<float>(config.lightning_scale);
  shape.slopes = model::LightningSlopes(config.lightning_heads);
  return shape;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Model>> Model::Load(const model::Checkpoint& checkpoint, kernels::Ops* ops,
                                                   MemoryLedger* ledger) {
  std::unique_ptr<Model> model(new Model());
  model->config_ = checkpoint.config();
  model->fingerprint_ = checkpoint.fingerprint();
  model->ops_ = ops;
  model->sparse_ = MakeSparseShape(model->config_, ops->activation_type());
  model->lightning_ = MakeLightningShape(model->config_);

  auto weights = std::make_shared<ModelWeights>();
  WeightLoader loader(checkpoint, *ops, *ledger);
  ASSIGN_OR_RETURN(weights->embedding, loader.LoadMatrix({"model.embed_tokens"}));
  if (!model->config_.tie_word_embeddings) {
    ASSIGN_OR_RETURN(weights->lm_head, loader.LoadMatrix({"lm_head"}));
  }
  ASSIGN_OR_RETURN(weights->final_norm, loader.LoadVector("model.norm.weight"));
  for (int64_t layer = 0; layer < model->layers(); ++layer) {
    ASSIGN_OR_RETURN(LayerWeights of_layer, loader.LoadLayer(layer));
    weights->layers.push_back(std::move(of_layer));
  }
  weights->vectors = loader.TakeVectors();
  weights->holds = loader.TakeHolds();
  model->weights_ = std::move(weights);
  return model;
}

std::unique_ptr<Model> Model::Share(kernels::Ops* ops) const {
  std::unique_ptr<Model> model(new Model(*this));
  model->ops_ = ops;
  return model;
}

int64_t Model::state_bytes() const {
  return lightning_.heads * lightning_.head_dim * lightning_.head_dim * static_cast<int64_t>(sizeof(float));
}

int64_t Model::SequenceBytes(int64_t tokens) const {
  const int64_t pages = (tokens + kernels::kPageTokens - 1) / kernels::kPageTokens;
  const int64_t page_and_its_entry = page_bytes() + static_cast<int64_t>(sizeof(std::byte*));
  return config_.CountLayers(model::LayerKind::kSparse) * pages * page_and_its_entry +
         config_.CountLayers(model::LayerKind::kLightning) * state_bytes();
}

}  // namespace salamander::engine
