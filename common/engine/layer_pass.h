// The steps of one layer over rows of activations: what prefill and decode share. The caller gives the rows' place in
// their sequences and decides how many rows still matter.
//
// Buffers, in the order of a layer: hidden (residual stream, float32) → normed → projection (q·k·v·gate) → mixed →
// projection (the mixer's output) → normed → gate_up → act → projection (the layer's output). That output stays in
// `projection` until the next layer's norm, or the final one, adds it to the residual stream: one pass over hidden less
// per layer.
#ifndef SALAMANDER_COMMON_ENGINE_LAYER_PASS_H_
#define SALAMANDER_COMMON_ENGINE_LAYER_PASS_H_

#include <cstdint>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "common/engine/forward.h"
#include "common/engine/model.h"
#include "kernels/ops.h"

namespace salamander::engine {

class LayerPass {
 public:
  // Cheap; everything outlives it. 1 ≤ rows ≤ max_rows of both buffers.
  LayerPass(const Model& model, Workspace& workspace, SpanActivations& activations, int64_t rows);

  absl::Status Embed(absl::Span<const int32_t> tokens);
  // Adds the output of the layer before (none for layer 0) to the residual stream; norm, fused projection, q/k norm
  // and RoPE.
  absl::Status Project(int64_t layer, absl::Span<const int64_t> positions);
  // Sparse layers: keys and values of all rows into the pages.
  absl::Status AppendKv(int64_t layer, absl::Span<const kernels::SparseRows> rows);
  // Sparse layers: attention of the rows listed, the two lists by regime.
  absl::Status Attend(int64_t layer, absl::Span<const kernels::SparseRows> sparse,
                      absl::Span<const kernels::SparseRows> dense);
  // Lightning layers: all rows.
  absl::Status Recur(int64_t layer, absl::Span<const kernels::LightningRows> rows);
  // For the last `wanted` rows: output norm, gate and projection, residual, MLP.
  absl::Status Finish(int64_t layer, int64_t wanted);
  // logits [rows, V] float32 on the device, from the residual stream and, with `add_output`, the last layer's output.
  absl::Status Logits(bool add_output, float* logits);

  // [rows, D] float32.
  kernels::Matrix hidden() const;
  // [rows, D].
  kernels::Matrix layer_output() const;
  // [rows, kv_heads, top_blocks], of the rows that the last Attend ran sparse.
  const int32_t* blocks() const;

 private:
  // The columns of the layer's fused projection.
  struct Columns {
    kernels::Matrix q, k, v, gate;
  };
  Columns Split(int64_t layer) const;
  kernels::Matrix projection(int64_t layer) const;
  kernels::Matrix mixed(int64_t layer) const;
  kernels::Matrix LastRows(const kernels::Matrix& matrix, int64_t rows) const;
  kernels::Matrix LastHidden(int64_t rows) const;

  const Model& model_;
  kernels::Ops& ops_;
  Workspace& workspace_;
  SpanActivations& activations_;
  int64_t rows_;
  int64_t element_bytes_;
};

}  // namespace salamander::engine

#endif  // SALAMANDER_COMMON_ENGINE_LAYER_PASS_H_
