#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/engine/forward.h"

namespace salamander::engine {
namespace {

absl::Status CheckMaxRows(int64_t max_rows) {
  if (max_rows >= 1) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("rows of a workspace must be ≥ 1, got ", max_rows));
}

}  // namespace

absl::StatusOr<std::unique_ptr<Workspace>> Workspace::Create(const Model& model, MemoryLedger& ledger,
                                                             int64_t max_rows) {
  RETURN_IF_ERROR(CheckMaxRows(max_rows));
  const model::Config& config = model.config();
  const int64_t element = kernels::DTypeBytes(model.ops().activation_type());
  const int64_t mixed = std::max(config.heads * config.head_dim, config.lightning_heads * config.lightning_head_dim);
  const int64_t blocks = config.kv_heads * model.sparse_shape().top_blocks;

  std::unique_ptr<Workspace> workspace(new Workspace());
  workspace->max_rows_ = max_rows;
  auto allocate = [&](int64_t row_bytes) {
    return DeviceBuffer::Allocate(model.ops(), ledger, MemoryOwner::kWorkspace, max_rows * row_bytes);
  };
  ASSIGN_OR_RETURN(workspace->normed_, allocate(config.hidden_size * element));
  ASSIGN_OR_RETURN(workspace->mixed_, allocate(mixed * element));
  ASSIGN_OR_RETURN(workspace->gate_up_, allocate(2 * config.intermediate_size * element));
  ASSIGN_OR_RETURN(workspace->act_, allocate(config.intermediate_size * element));
  ASSIGN_OR_RETURN(workspace->blocks_, allocate(blocks * static_cast<int64_t>(sizeof(int32_t))));
  return workspace;
}

absl::StatusOr<std::unique_ptr<SpanActivations>> SpanActivations::Create(const Model& model, MemoryLedger& ledger,
                                                                         int64_t max_rows) {
  RETURN_IF_ERROR(CheckMaxRows(max_rows));
  const int64_t element = kernels::DTypeBytes(model.ops().activation_type());
  const int64_t hidden_size = model.config().hidden_size;
  // Also takes a layer's output, [rows, D].
  int64_t widest = hidden_size;
  for (int64_t layer = 0; layer < model.layers(); ++layer) {
    widest = std::max(widest, model.layer(layer).projection->out_features());
  }
  std::unique_ptr<SpanActivations> activations(new SpanActivations());
  activations->max_rows_ = max_rows;
  auto allocate = [&](int64_t row_bytes) {
    return DeviceBuffer::Allocate(model.ops(), ledger, MemoryOwner::kWorkspace, max_rows * row_bytes);
  };
  ASSIGN_OR_RETURN(activations->hidden_, allocate(hidden_size * static_cast<int64_t>(sizeof(float))));
  ASSIGN_OR_RETURN(activations->projection_, allocate(widest * element));
  return activations;
}

}  // namespace salamander::engine
