#include "common/engine/layer_pass.h"

#include "common/base/status_macros.h"

namespace salamander::engine {

using kernels::Matrix;

namespace {

Matrix Dense(const DeviceBuffer& buffer, int64_t rows, int64_t cols) { return {buffer.data(), rows, cols, cols}; }

Matrix LastRowsOf(const Matrix& matrix, int64_t rows, int64_t element_bytes) {
  const int64_t skipped = (matrix.rows - rows) * matrix.stride * element_bytes;
  return {static_cast<std::byte*>(matrix.data) + skipped, rows, matrix.cols, matrix.stride};
}

}  // namespace

LayerPass::LayerPass(const Model& model, Workspace& workspace, SpanActivations& activations, int64_t rows)
    : model_(model),
      ops_(model.ops()),
      workspace_(workspace),
      activations_(activations),
      rows_(rows),
      element_bytes_(kernels::DTypeBytes(model.ops().activation_type())) {}

Matrix LayerPass::hidden() const { return Dense(activations_.hidden_, rows_, model_.config().hidden_size); }

Matrix LayerPass::layer_output() const { return Dense(activations_.projection_, rows_, model_.config().hidden_size); }

const int32_t* LayerPass::blocks() const { return workspace_.blocks_.as<int32_t>(); }

Matrix LayerPass::projection(int64_t layer) const {
  return Dense(activations_.projection_, rows_, model_.layer(layer).projection->out_features());
}

Matrix LayerPass::mixed(int64_t layer) const {
  return Dense(workspace_.mixed_, rows_, model_.layer(layer).output->in_features());
}

Matrix LayerPass::LastRows(const Matrix& matrix, int64_t rows) const {
  return LastRowsOf(matrix, rows, element_bytes_);
}

Matrix LayerPass::LastHidden(int64_t rows) const {
  return LastRowsOf(hidden(), rows, static_cast<int64_t>(sizeof(float)));
}

LayerPass::Columns LayerPass::Split(int64_t layer) const {
  const model::Config& config = model_.config();
  const bool sparse = model_.is_sparse(layer);
  const int64_t head_dim = sparse ? config.head_dim : config.lightning_head_dim;
  const int64_t q_cols = (sparse ? config.heads : config.lightning_heads) * head_dim;
  const int64_t kv_cols = (sparse ? config.kv_heads : config.lightning_kv_heads) * head_dim;
  const bool gated = sparse ? config.attn_use_output_gate : config.use_output_gate;

  const Matrix all = projection(layer);
  int64_t column = 0;
  auto take = [&](int64_t cols) {
    const Matrix part = {static_cast<std::byte*>(all.data) + column * element_bytes_, rows_, cols, all.stride};
    column += cols;
    return part;
  };
  Columns columns;
  columns.q = take(q_cols);
  columns.k = take(kv_cols);
  columns.v = take(kv_cols);
  if (gated) columns.gate = take(q_cols);
  return columns;
}

absl::Status LayerPass::Embed(absl::Span<const int32_t> tokens) {
  return ops_.Embed(tokens, model_.embedding(), static_cast<float>(model_.config().scale_emb), hidden());
}

absl::Status LayerPass::Project(int64_t layer, absl::Span<const int64_t> positions) {
  const model::Config& config = model_.config();
  const LayerWeights& weights = model_.layer(layer);
  const float eps = static_cast<float>(config.rms_norm_eps);
  const Matrix normed = Dense(workspace_.normed_, rows_, config.hidden_size);
  const Matrix before = layer == 0 ? Matrix{} : layer_output();
  RETURN_IF_ERROR(ops_.AddRmsNorm(hidden(), before, static_cast<float>(config.residual_scale()), weights.input_norm,
                                  eps, 1, normed));
  RETURN_IF_ERROR(ops_.MatMul(normed, *weights.projection, weights.projection_bias, projection(layer)));

  const bool sparse = model_.is_sparse(layer);
  const bool rotate = sparse ? config.attn_use_rope : config.lightning_use_rope;
  const float theta = rotate ? static_cast<float>(config.rope_theta) : 0;
  const int64_t head_dim = sparse ? config.head_dim : config.lightning_head_dim;
  const Columns columns = Split(layer);
  for (const auto& [part, norm] : {std::pair(columns.q, weights.q_norm), std::pair(columns.k, weights.k_norm)}) {
    if (norm == nullptr && !rotate) continue;
    RETURN_IF_ERROR(ops_.HeadNormRope(part, head_dim, norm, eps, theta, positions));
  }
  return absl::OkStatus();
}

absl::Status LayerPass::AppendKv(int64_t layer, absl::Span<const kernels::SparseRows> rows) {
  const Columns columns = Split(layer);
  return ops_.AppendKv(model_.sparse_shape(), columns.k, columns.v, rows);
}

absl::Status LayerPass::Attend(int64_t layer, absl::Span<const kernels::SparseRows> sparse,
                               absl::Span<const kernels::SparseRows> dense) {
  const kernels::SparseShape& shape = model_.sparse_shape();
  const Matrix q = Split(layer).q;
  if (!sparse.empty()) {
    auto* blocks = workspace_.blocks_.as<int32_t>();
    RETURN_IF_ERROR(ops_.SelectBlocks(shape, q, sparse, blocks));
    RETURN_IF_ERROR(ops_.AttendBlocks(shape, q, sparse, blocks, mixed(layer)));
  }
  if (!dense.empty()) RETURN_IF_ERROR(ops_.AttendDense(shape, q, dense, mixed(layer)));
  return absl::OkStatus();
}

absl::Status LayerPass::Recur(int64_t layer, absl::Span<const kernels::LightningRows> rows) {
  const Columns columns = Split(layer);
  return ops_.Lightning(model_.lightning_shape(), columns.q, columns.k, columns.v, rows, mixed(layer));
}

absl::Status LayerPass::Finish(int64_t layer, int64_t wanted) {
  const model::Config& config = model_.config();
  const LayerWeights& weights = model_.layer(layer);
  const float eps = static_cast<float>(config.rms_norm_eps);
  const Matrix mix = LastRows(mixed(layer), wanted);
  const Matrix output = LastRows(layer_output(), wanted);
  const Matrix normed = Dense(workspace_.normed_, wanted, config.hidden_size);
  const Matrix gate_up = Dense(workspace_.gate_up_, wanted, 2 * config.intermediate_size);
  const Matrix act = Dense(workspace_.act_, wanted, config.intermediate_size);

  const Columns columns = Split(layer);
  const Matrix gate = columns.gate.data == nullptr ? Matrix{} : LastRows(columns.gate, wanted);
  if (weights.o_norm != nullptr || gate.data != nullptr) {
    RETURN_IF_ERROR(ops_.NormGate(mix, weights.o_norm, eps, gate));
  }
  RETURN_IF_ERROR(ops_.MatMul(mix, *weights.output, weights.output_bias, output));
  RETURN_IF_ERROR(ops_.AddRmsNorm(LastHidden(wanted), output, static_cast<float>(config.residual_scale()),
                                  weights.post_attention_norm, eps, 1, normed));
  RETURN_IF_ERROR(ops_.MatMul(normed, *weights.gate_up, nullptr, gate_up));
  RETURN_IF_ERROR(ops_.SiluMul(gate_up, act));
  return ops_.MatMul(act, *weights.down, nullptr, output);
}

absl::Status LayerPass::Logits(bool add_output, float* logits) {
  const model::Config& config = model_.config();
  const Matrix normed = Dense(workspace_.normed_, rows_, config.hidden_size);
  const Matrix output = add_output ? layer_output() : Matrix{};
  RETURN_IF_ERROR(ops_.AddRmsNorm(hidden(), output, static_cast<float>(config.residual_scale()), model_.final_norm(),
                                  static_cast<float>(config.rms_norm_eps),
                                  static_cast<float>(1 / config.logits_divisor()), normed));
  return ops_.MatMulLogits(normed, model_.lm_head(), logits, config.vocab_size);
}

}  // namespace salamander::engine
