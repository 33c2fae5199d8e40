#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/engine/float_convert.h"
#include "common/engine/forward.h"
#include "common/engine/layer_pass.h"

namespace salamander::engine {

absl::StatusOr<std::unique_ptr<DecodeForward>> DecodeForward::Create(const Model& model, MemoryLedger& ledger,
                                                                     int64_t max_batch) {
  std::unique_ptr<DecodeForward> forward(new DecodeForward());
  forward->model_ = &model;
  forward->max_batch_ = max_batch;
  ASSIGN_OR_RETURN(forward->workspace_, Workspace::Create(model, ledger, max_batch));
  ASSIGN_OR_RETURN(forward->activations_, SpanActivations::Create(model, ledger, max_batch));
  const int64_t logits = max_batch * model.config().vocab_size;
  ASSIGN_OR_RETURN(forward->logits_, DeviceBuffer::Allocate(model.ops(), ledger, MemoryOwner::kWorkspace,
                                                            logits * static_cast<int64_t>(sizeof(float))));
  forward->host_logits_.resize(logits);
  return forward;
}

absl::Status DecodeForward::CheckRows(absl::Span<const DecodeRow> rows) const {
  const int64_t vocab_size = model_->config().vocab_size;
  for (const DecodeRow& row : rows) {
    if (row.token < 0 || row.token >= vocab_size) {
      return absl::InvalidArgumentError(
          absl::StrCat("token to decode must be in [0, ", vocab_size, "), got ", row.token));
    }
    if (row.position < 0 || row.position >= row.sequence->max_tokens()) {
      return absl::InvalidArgumentError(absl::StrCat("position to decode must be in [0, ", row.sequence->max_tokens(),
                                                     ") of its sequence, got ", row.position));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<absl::Span<const float>> DecodeForward::Step(absl::Span<const DecodeRow> rows) {
  const int64_t count = static_cast<int64_t>(rows.size());
  RETURN_IF_ERROR(CheckCount(count));
  RETURN_IF_ERROR(CheckRows(rows));
  std::vector<int32_t> tokens;
  std::vector<int64_t> positions;
  for (const DecodeRow& row : rows) {
    tokens.push_back(row.token);
    positions.push_back(row.position);
  }
  LayerPass pass(*model_, *workspace_, *activations_, count);
  RETURN_IF_ERROR(pass.Embed(tokens));
  for (int64_t layer = 0; layer < model_->layers(); ++layer) {
    RETURN_IF_ERROR(pass.Project(layer, positions));
    if (model_->is_sparse(layer)) {
      RETURN_IF_ERROR(SparseLayer(pass, layer, rows));
    } else {
      RETURN_IF_ERROR(LightningLayer(pass, layer, rows));
    }
    RETURN_IF_ERROR(pass.Finish(layer, count));
  }
  return Logits(pass, count, /*add_output=*/true);
}

absl::Status DecodeForward::SparseLayer(LayerPass& pass, int64_t layer, absl::Span<const DecodeRow> rows) {
  std::vector<kernels::SparseRows> all, sparse, dense;
  for (size_t i = 0; i < rows.size(); ++i) {
    const DecodeRow& row = rows[i];
    const int64_t tokens = row.position + 1;
    const kernels::SparseRows entry = {static_cast<int64_t>(i), 1, row.position, row.sequence->pages(layer)};
    all.push_back(entry);
    (tokens >= model_->config().dense_len ? sparse : dense).push_back(entry);
  }
  RETURN_IF_ERROR(pass.AppendKv(layer, all));
  for (const DecodeRow& row : rows) {
    const bool begins_block = row.position % kernels::kBlockTokens == 0;
    if (begins_block) RETURN_IF_ERROR(row.sequence->ZeroTail(layer, row.position + 1));
    RETURN_IF_ERROR(row.sequence->ExtendTiers(layer, row.position + 1));
  }
  return pass.Attend(layer, sparse, dense);
}

absl::Status DecodeForward::LightningLayer(LayerPass& pass, int64_t layer, absl::Span<const DecodeRow> rows) {
  std::vector<kernels::LightningRows> entries;
  for (size_t i = 0; i < rows.size(); ++i) {
    entries.push_back({static_cast<int64_t>(i), 1, rows[i].position, rows[i].sequence->state(layer)});
  }
  return pass.Recur(layer, entries);
}

absl::StatusOr<absl::Span<const float>> DecodeForward::LogitsOf(absl::Span<const float* const> hidden_rows) {
  const int64_t count = static_cast<int64_t>(hidden_rows.size());
  RETURN_IF_ERROR(CheckCount(count));
  kernels::Ops& ops = model_->ops();
  const kernels::DType type = ops.activation_type();
  const int64_t size = model_->config().hidden_size;
  const int64_t row_bytes = size * kernels::DTypeBytes(type);
  std::vector<std::byte> raw(count * row_bytes);
  for (int64_t row = 0; row < count; ++row) FromFloats(hidden_rows[row], type, size, raw.data() + row * row_bytes);

  LayerPass pass(*model_, *workspace_, *activations_, count);
  RETURN_IF_ERROR(ops.CopyToDevice(pass.hidden().data, raw.data(), count * row_bytes));
  return Logits(pass, count, /*add_output=*/false);  // Synchronizes before `raw` ends.
}

absl::Status DecodeForward::CheckCount(int64_t rows) const {
  if (rows >= 1 && rows <= max_batch_) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("rows of a decode batch must be in [1, ", max_batch_, "], got ", rows));
}

absl::StatusOr<absl::Span<const float>> DecodeForward::Logits(LayerPass& pass, int64_t rows, bool add_output) {
  kernels::Ops& ops = model_->ops();
  const int64_t count = rows * model_->config().vocab_size;
  RETURN_IF_ERROR(pass.Logits(add_output, logits_.as<float>()));
  RETURN_IF_ERROR(ops.CopyToHost(host_logits_.data(), logits_.data(), count * static_cast<int64_t>(sizeof(float))));
  RETURN_IF_ERROR(ops.Synchronize());
  return absl::MakeConstSpan(host_logits_.data(), count);
}

}  // namespace salamander::engine
