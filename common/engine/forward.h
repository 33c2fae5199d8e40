// The forward pass, written once over kernels/ops.h: over a span of a prompt, and over a decode batch.
//
// A SpanForward is resumable. Each layer has two phases; between them it may have to wait for earlier spans that other
// workers compute:
//
//   kProject  norm, fused projection, q/k norm and RoPE, keys and values into the pages    needs nothing
//   kMix      attention or recurrence, output projection, MLP                              needs earlier context
//
// In the last layer only what somebody needs is computed: keys, values and states by every span, the rest for the
// prompt's last row alone.
//
// The caller steps a span only when the phase's needs are met, publishes what a step produced, and may step other spans
// in between:
//
//   SpanForward span(model, sequence, workspace…);
//   while (span.phase() != SpanPhase::kFinished) { wait for span.needs; RETURN_IF_ERROR(span.Step()); publish; }
#ifndef SALAMANDER_COMMON_ENGINE_FORWARD_H_
#define SALAMANDER_COMMON_ENGINE_FORWARD_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/engine/model.h"
#include "common/engine/sampler.h"
#include "common/engine/sequence.h"

namespace salamander::engine {

class LayerPass;

// Scratch shared by all forward passes of one engine thread: nothing in it survives a Step. Sized at start for
// `max_rows` rows (the longest span, or the largest decode batch).
class Workspace {
 public:
  static absl::StatusOr<std::unique_ptr<Workspace>> Create(const Model& model, MemoryLedger& ledger, int64_t max_rows);
  int64_t max_rows() const { return max_rows_; }

 private:
  friend class LayerPass;
  Workspace() = default;
  int64_t max_rows_ = 0;
  DeviceBuffer normed_;   // [rows, D]
  DeviceBuffer mixed_;    // [rows, widest attention output]
  DeviceBuffer gate_up_;  // [rows, 2I]
  DeviceBuffer act_;      // [rows, I]
  DeviceBuffer blocks_;   // int32 [rows, kv heads, top blocks]
};

// What one span keeps between its steps: residual stream and the current layer's projection. Reused between spans.
class SpanActivations {
 public:
  static absl::StatusOr<std::unique_ptr<SpanActivations>> Create(const Model& model, MemoryLedger& ledger,
                                                                 int64_t max_rows);
  int64_t max_rows() const { return max_rows_; }

 private:
  friend class LayerPass;
  SpanActivations() = default;
  int64_t max_rows_ = 0;
  DeviceBuffer hidden_;      // float32 [rows, D]
  DeviceBuffer projection_;  // [rows, widest fused projection]; then the layer's output, [rows, D]
};

enum class SpanPhase { kProject, kMix, kFinished };

// Engine thread only. The referenced objects outlive it.
class SpanForward {
 public:
  // `tokens` are those of the span, which begins at position `begin` of a prompt of `prompt_tokens` (that length alone
  // decides between the dense and the sparse regime).
  SpanForward(Sequence& sequence, Workspace& workspace, SpanActivations& activations, absl::Span<const int32_t> tokens,
              int64_t begin, int64_t prompt_tokens);

  SpanPhase phase() const { return phase_; }
  int64_t layer() const { return layer_; }
  int64_t begin() const { return begin_; }
  int64_t end() const { return begin_ + static_cast<int64_t>(tokens_.size()); }

  // Runs the current phase and moves to the next. Before kMix of a sparse layer all keys and values of [0, begin) must
  // be in the pages; of a lightning layer the state must be that after position begin - 1 (for begin 0: zeros).
  // After kProject of a sparse layer the span's keys and values are in the pages; after kMix of a lightning layer the
  // sequence's state is that after the span.
  absl::Status Step();

  // The residual stream of the last row, [D] float32 (host): when the prompt's last span is finished, or, before a
  // kProject, that after the layer before. FAILED_PRECONDITION otherwise.
  absl::StatusOr<std::vector<float>> LastHidden() const;

  // For tests and captures: the block choice of a sparse layer whose kMix step was the last step, [rows, kv_heads,
  // top_blocks] (host). Of the last layer only the prompt's last row is there.
  absl::StatusOr<std::vector<int32_t>> LastBlocks() const;

 private:
  absl::Status Check() const;
  absl::Status Project();
  absl::Status MixSparse();
  absl::Status MixLightning();
  bool last_layer() const { return layer_ + 1 == sequence_.model().layers(); }
  int64_t rows() const { return static_cast<int64_t>(tokens_.size()); }
  // How many of the span's last rows are needed after the current layer.
  int64_t WantedRows() const;

  Sequence& sequence_;
  Workspace& workspace_;
  SpanActivations& activations_;
  std::vector<int32_t> tokens_;
  std::vector<int64_t> positions_;
  int64_t begin_;
  int64_t prompt_tokens_;
  SpanPhase phase_ = SpanPhase::kProject;
  int64_t layer_ = 0;
};

// One sequence of a decode step: `token` goes to position `position`.
struct DecodeRow {
  Sequence* sequence = nullptr;
  int32_t token = 0;
  int64_t position = 0;
};

// Engine thread only.
class DecodeForward {
 public:
  static absl::StatusOr<std::unique_ptr<DecodeForward>> Create(const Model& model, MemoryLedger& ledger,
                                                               int64_t max_batch);
  int64_t max_batch() const { return max_batch_; }

  // Computes the logits after every row's token. At most max_batch rows, each of another sequence. A row runs sparse if
  // position + 1 ≥ dense_len.
  absl::Status Step(absl::Span<const DecodeRow> rows);

  // Computes the logits after the prompt, from hidden rows as LastHidden gives them (host); each [D].
  absl::Status FirstStep(absl::Span<const float* const> hidden_rows);

  // Draws a token from each row of the logits of the last step. The result is valid until the next call.
  absl::StatusOr<absl::Span<const Draw>> Sample(const DrawRequests& requests);

  // For tests: the logits of the last step, [rows, vocab] float32.
  absl::StatusOr<std::vector<float>> ReadLogits() const;

 private:
  // A step's rows and, where the device records repeats, more that fill it up to a size that comes again.
  struct Batch {
    absl::Span<const DecodeRow> rows;
    std::vector<int32_t> tokens;
    std::vector<int64_t> positions;
    bool any_sparse = false, any_dense = false;
    kernels::RepeatKey key;

    int64_t size() const { return static_cast<int64_t>(tokens.size()); }
  };

  DecodeForward() = default;
  Batch MakeBatch(absl::Span<const DecodeRow> rows) const;
  absl::Status CheckCount(int64_t rows) const;
  absl::Status CheckRows(absl::Span<const DecodeRow> rows) const;
  absl::Status Run(const Batch& batch);
  absl::Status SparseLayer(LayerPass& pass, int64_t layer, const Batch& batch);
  absl::Status LightningLayer(LayerPass& pass, int64_t layer, const Batch& batch);

  const Model* model_ = nullptr;
  int64_t max_batch_ = 0;
  std::unique_ptr<Workspace> workspace_;
  std::unique_ptr<SpanActivations> activations_;
  DeviceBuffer logits_;
  int64_t logits_rows_ = 0;
  HostBuffer host_tokens_;  // kernels::SampledToken [max_batch]
  HostBuffer host_top_;     // kernels::TokenLogprob [max_batch, top_stride_]
  int64_t top_stride_ = 0;
  std::vector<Draw> draws_;
};

}  // namespace salamander::engine

#endif  // SALAMANDER_COMMON_ENGINE_FORWARD_H_
