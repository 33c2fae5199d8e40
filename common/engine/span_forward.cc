#include <numeric>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/engine/float_convert.h"
#include "common/engine/forward.h"
#include "common/engine/layer_pass.h"

namespace salamander::engine {

SpanForward::SpanForward(Sequence& sequence, Workspace& workspace, SpanActivations& activations,
                         absl::Span<const int32_t> tokens, int64_t begin, int64_t prompt_tokens)
    : sequence_(sequence),
      workspace_(workspace),
      activations_(activations),
      tokens_(tokens.begin(), tokens.end()),
      positions_(tokens.size()),
      begin_(begin),
      prompt_tokens_(prompt_tokens) {
  std::iota(positions_.begin(), positions_.end(), begin);
}

absl::Status SpanForward::Step() {
  switch (phase_) {
    case SpanPhase::kProject:
      RETURN_IF_ERROR(Project());
      phase_ = SpanPhase::kMix;
      return absl::OkStatus();
    case SpanPhase::kMix:
      RETURN_IF_ERROR(sequence_.model().is_sparse(layer_) ? MixSparse() : MixLightning());
      phase_ = last_layer() ? SpanPhase::kFinished : SpanPhase::kProject;
      ++layer_;
      return absl::OkStatus();
    case SpanPhase::kFinished:
      break;
  }
  return absl::FailedPreconditionError(absl::StrCat("span [", begin_, ", ", end(), ") is finished"));
}

absl::Status SpanForward::Check() const {
  const int64_t max_rows = std::min(workspace_.max_rows(), activations_.max_rows());
  if (rows() < 1 || rows() > max_rows) {
    return absl::InvalidArgumentError(absl::StrCat("tokens of a span must be in [1, ", max_rows, "], got ", rows()));
  }
  if (begin_ < 0 || begin_ % kernels::kBlockTokens != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("begin of a span must be a multiple of ", kernels::kBlockTokens, ", got ", begin_));
  }
  if (end() > prompt_tokens_ || prompt_tokens_ > sequence_.max_tokens()) {
    return absl::InvalidArgumentError(absl::StrCat("span [", begin_, ", ", end(), ") of a prompt of ", prompt_tokens_,
                                                   " tokens does not fit a sequence of ", sequence_.max_tokens()));
  }
  const int64_t vocab_size = sequence_.model().config().vocab_size;
  for (size_t i = 0; i < tokens_.size(); ++i) {
    if (tokens_[i] >= 0 && tokens_[i] < vocab_size) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("token at position ", positions_[i], " must be in [0, ", vocab_size, "), got ", tokens_[i]));
  }
  return absl::OkStatus();
}

int64_t SpanForward::WantedRows() const {
  if (!last_layer()) return rows();
  return end() == prompt_tokens_ ? 1 : 0;
}

absl::Status SpanForward::Project() {
  LayerPass pass(sequence_.model(), workspace_, activations_, rows());
  if (layer_ == 0) {
    RETURN_IF_ERROR(Check());
    RETURN_IF_ERROR(pass.Embed(tokens_));
  }
  RETURN_IF_ERROR(pass.Project(layer_, positions_));
  if (!sequence_.model().is_sparse(layer_)) return absl::OkStatus();
  return pass.AppendKv(layer_, {{0, rows(), begin_, sequence_.pages(layer_)}});
}

absl::Status SpanForward::MixSparse() {
  const Model& model = sequence_.model();
  LayerPass pass(model, workspace_, activations_, rows());
  const int64_t wanted = WantedRows();
  // Also in the dense regime: decoding may cross into the sparse one.
  RETURN_IF_ERROR(sequence_.ExtendTiers(layer_, end()));
  if (wanted == 0) return absl::OkStatus();
  const kernels::SparseRows wanted_rows = {rows() - wanted, wanted, end() - wanted, sequence_.pages(layer_)};
  if (prompt_tokens_ >= model.config().dense_len) {
    RETURN_IF_ERROR(pass.Attend(layer_, {wanted_rows}, {}));
  } else {
    RETURN_IF_ERROR(pass.Attend(layer_, {}, {wanted_rows}));
  }
  return pass.Finish(layer_, wanted);
}

absl::Status SpanForward::MixLightning() {
  LayerPass pass(sequence_.model(), workspace_, activations_, rows());
  RETURN_IF_ERROR(pass.Recur(layer_, {{0, rows(), begin_, sequence_.state(layer_)}}));
  return WantedRows() == 0 ? absl::OkStatus() : pass.Finish(layer_, WantedRows());
}

absl::StatusOr<std::vector<float>> SpanForward::LastHidden() const {
  const bool after_layer = phase_ == SpanPhase::kProject && layer_ > 0;
  const bool after_prompt = phase_ == SpanPhase::kFinished && end() == prompt_tokens_;
  if (!after_layer && !after_prompt) {
    return absl::FailedPreconditionError(
        absl::StrCat("span [", begin_, ", ", end(), ") has no last hidden row at layer ", layer_));
  }
  const Model& model = sequence_.model();
  kernels::Ops& ops = model.ops();
  const kernels::DType type = ops.activation_type();
  const int64_t size = model.config().hidden_size;
  const int64_t output_bytes = size * kernels::DTypeBytes(type);
  LayerPass pass(model, workspace_, activations_, rows());
  std::vector<float> hidden(size), output(size);
  std::vector<std::byte> raw_output(output_bytes);
  const float* last_hidden = static_cast<const float*>(pass.hidden().data) + (rows() - 1) * size;
  const std::byte* last_output = static_cast<const std::byte*>(pass.layer_output().data) + (rows() - 1) * output_bytes;
  RETURN_IF_ERROR(ops.CopyToHost(hidden.data(), last_hidden, size * static_cast<int64_t>(sizeof(float))));
  RETURN_IF_ERROR(ops.CopyToHost(raw_output.data(), last_output, output_bytes));
  RETURN_IF_ERROR(ops.Synchronize());
  ToFloats(raw_output.data(), type, size, output.data());
  const float scale = static_cast<float>(model.config().residual_scale());
  for (int64_t i = 0; i < size; ++i) hidden[i] += scale * output[i];
  return hidden;
}

absl::StatusOr<std::vector<int32_t>> SpanForward::LastBlocks() const {
  const Model& model = sequence_.model();
  const kernels::SparseShape& shape = model.sparse_shape();
  const bool sparse_mix_was_last = phase_ != SpanPhase::kMix && layer_ > 0 && model.is_sparse(layer_ - 1);
  if (!sparse_mix_was_last || prompt_tokens_ < model.config().dense_len) {
    return absl::FailedPreconditionError(absl::StrCat("layer ", layer_ - 1, " has just chosen no blocks"));
  }
  std::vector<int32_t> blocks(rows() * shape.kv.kv_heads * shape.top_blocks);
  LayerPass pass(model, workspace_, activations_, rows());
  RETURN_IF_ERROR(model.ops().CopyToHost(blocks.data(), pass.blocks(), blocks.size() * sizeof(int32_t)));
  RETURN_IF_ERROR(model.ops().Synchronize());
  return blocks;
}

}  // namespace salamander::engine
