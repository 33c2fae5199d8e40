#include <algorithm>
#include <bit>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/engine/forward.h"
#include "common/engine/layer_pass.h"

namespace salamander::engine {
namespace {

// Repeats are told apart by length from here on.
constexpr int64_t kShortestRepeat = 8192;

int64_t RoundUpToPowerOfTwo(int64_t value) { return static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(value))); }

}  // namespace

absl::StatusOr<std::unique_ptr<DecodeForward>> DecodeForward::Create(const Model& model, MemoryLedger& ledger,
                                                                     int64_t max_batch) {
  std::unique_ptr<DecodeForward> forward(new DecodeForward());
  forward->model_ = &model;
  forward->max_batch_ = max_batch;
  ASSIGN_OR_RETURN(forward->workspace_, Workspace::Create(model, ledger, max_batch));
  ASSIGN_OR_RETURN(forward->activations_, SpanActivations::Create(model, ledger, max_batch));
  const int64_t logits_bytes = max_batch * model.config().vocab_size * static_cast<int64_t>(sizeof(float));
  ASSIGN_OR_RETURN(forward->logits_,
                   DeviceBuffer::Allocate(model.ops(), ledger, MemoryOwner::kWorkspace, logits_bytes));
  const int64_t tokens_bytes = max_batch * static_cast<int64_t>(sizeof(kernels::SampledToken));
  ASSIGN_OR_RETURN(forward->host_tokens_, HostBuffer::Allocate(model.ops(), tokens_bytes));
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

absl::Status DecodeForward::Step(absl::Span<const DecodeRow> rows) {
  const int64_t count = static_cast<int64_t>(rows.size());
  RETURN_IF_ERROR(CheckCount(count));
  RETURN_IF_ERROR(CheckRows(rows));
  Batch batch = MakeBatch(rows);
  kernels::Ops& ops = model_->ops();
  RETURN_IF_ERROR(ops.BeginRepeat(batch.key));
  const absl::Status run = Run(batch);
  const absl::Status ended = ops.EndRepeat();
  RETURN_IF_ERROR(run);
  RETURN_IF_ERROR(ended);
  logits_rows_ = count;
  return absl::OkStatus();
}

DecodeForward::Batch DecodeForward::MakeBatch(absl::Span<const DecodeRow> rows) const {
  Batch batch;
  batch.rows = rows;
  int64_t size = static_cast<int64_t>(rows.size()), longest = kShortestRepeat;
  if (model_->ops().records_repeats()) size = std::min(RoundUpToPowerOfTwo(size), max_batch_);
  // Rows that only fill up the batch: some token, at a position of its own, of no sequence.
  batch.tokens.resize(size, 0);
  batch.positions.resize(size, 0);
  for (size_t i = 0; i < rows.size(); ++i) {
    batch.tokens[i] = rows[i].token;
    batch.positions[i] = rows[i].position;
    longest = std::max(longest, rows[i].sequence->max_tokens());
    (rows[i].position + 1 >= model_->config().dense_len ? batch.any_sparse : batch.any_dense) = true;
  }
  batch.key = {.rows = size,
               .max_tokens = RoundUpToPowerOfTwo(longest),
               .variant = (batch.any_sparse ? 1 : 0) + (batch.any_dense ? 2 : 0)};
  return batch;
}

absl::Status DecodeForward::Run(const Batch& batch) {
  LayerPass pass(*model_, *workspace_, *activations_, batch.size());
  RETURN_IF_ERROR(pass.Embed(batch.tokens));
  for (int64_t layer = 0; layer < model_->layers(); ++layer) {
    RETURN_IF_ERROR(pass.Project(layer, batch.positions));
    if (model_->is_sparse(layer)) {
      RETURN_IF_ERROR(SparseLayer(pass, layer, batch));
    } else {
      RETURN_IF_ERROR(LightningLayer(pass, layer, batch));
    }
    RETURN_IF_ERROR(pass.Finish(layer, batch.size()));
  }
  return pass.Logits(/*add_output=*/true, logits_.as<float>());
}

absl::Status DecodeForward::SparseLayer(LayerPass& pass, int64_t layer, const Batch& batch) {
  // Each list has an entry for every row; one without rows where the list is not for it.
  std::vector<kernels::SparseRows> all(batch.size()), tiers(batch.size()), sparse(batch.size()), dense(batch.size());
  for (size_t i = 0; i < batch.rows.size(); ++i) {
    const DecodeRow& row = batch.rows[i];
    all[i] = {static_cast<int64_t>(i), 1, row.position, row.sequence->pages(layer)};
    tiers[i] = row.sequence->TakeTierRows(layer, row.position + 1);
    (row.position + 1 >= model_->config().dense_len ? sparse : dense)[i] = all[i];
  }
  RETURN_IF_ERROR(pass.AppendKv(layer, all));
  RETURN_IF_ERROR(model_->ops().PoolTiers(model_->sparse_shape(), tiers));
  if (!batch.any_sparse) sparse.clear();
  if (!batch.any_dense) dense.clear();
  return pass.Attend(layer, sparse, dense);
}

absl::Status DecodeForward::LightningLayer(LayerPass& pass, int64_t layer, const Batch& batch) {
  std::vector<kernels::LightningRows> entries(batch.size());
  for (size_t i = 0; i < batch.rows.size(); ++i) {
    const DecodeRow& row = batch.rows[i];
    entries[i] = {static_cast<int64_t>(i), 1, row.position, row.sequence->state(layer)};
  }
  return pass.Recur(layer, entries);
}

absl::Status DecodeForward::FirstStep(absl::Span<const float* const> hidden_rows) {
  const int64_t count = static_cast<int64_t>(hidden_rows.size());
  RETURN_IF_ERROR(CheckCount(count));
  const int64_t size = model_->config().hidden_size;
  LayerPass pass(*model_, *workspace_, *activations_, count);
  auto* hidden = static_cast<float*>(pass.hidden().data);
  for (int64_t row = 0; row < count; ++row) {
    RETURN_IF_ERROR(
        model_->ops().CopyToDevice(hidden + row * size, hidden_rows[row], size * static_cast<int64_t>(sizeof(float))));
  }
  RETURN_IF_ERROR(pass.Logits(/*add_output=*/false, logits_.as<float>()));
  logits_rows_ = count;
  return absl::OkStatus();
}

absl::Status DecodeForward::CheckCount(int64_t rows) const {
  if (rows >= 1 && rows <= max_batch_) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("rows of a decode batch must be in [1, ", max_batch_, "], got ", rows));
}

absl::StatusOr<absl::Span<const Draw>> DecodeForward::Sample(const DrawRequests& requests) {
  const auto count = static_cast<int64_t>(requests.rows.size());
  if (count != logits_rows_) {
    return absl::InvalidArgumentError(
        absl::StrCat("draws must be as many as the ", logits_rows_, " rows of the last step, got ", count));
  }
  kernels::Ops& ops = model_->ops();
  const int64_t vocab_size = model_->config().vocab_size;
  int64_t likeliest = 0;
  for (const kernels::SampleRow& row : requests.rows) likeliest = std::max<int64_t>(likeliest, row.logprobs);
  likeliest = std::min(likeliest, vocab_size);
  if (likeliest > top_stride_) {
    const auto bytes = max_batch_ * likeliest * static_cast<int64_t>(sizeof(kernels::TokenLogprob));
    ASSIGN_OR_RETURN(host_top_, HostBuffer::Allocate(ops, bytes));
    top_stride_ = likeliest;
  }
  const kernels::Matrix logits = {logits_.data(), count, vocab_size, vocab_size};
  auto* const tokens = host_tokens_.as<kernels::SampledToken>();
  auto* const top = host_top_.as<kernels::TokenLogprob>();
  RETURN_IF_ERROR(ops.Sample(logits, requests.rows, requests.edits, tokens, top, likeliest));
  RETURN_IF_ERROR(ops.Synchronize());
  draws_.clear();
  for (int64_t i = 0; i < count; ++i) {
    const int64_t listed = std::clamp<int64_t>(requests.rows[i].logprobs, 0, likeliest);
    draws_.push_back({tokens[i].token, tokens[i].logprob, absl::MakeConstSpan(top + i * likeliest, listed)});
  }
  return draws_;
}

absl::StatusOr<std::vector<float>> DecodeForward::ReadLogits() const {
  kernels::Ops& ops = model_->ops();
  std::vector<float> logits(logits_rows_ * model_->config().vocab_size);
  const auto bytes = static_cast<int64_t>(logits.size() * sizeof(float));
  RETURN_IF_ERROR(ops.CopyToHost(logits.data(), logits_.data(), bytes));
  RETURN_IF_ERROR(ops.Synchronize());
  return logits;
}

}  // namespace salamander::engine
