// The one interface between the engine and a device: what the forward pass of MiniCPM-SALA needs, at the granularity
// that suits both a CPU and a GPU. docs in ../docs/architecture.md; equations in the model's report.
//
// Order and threads: one engine thread calls an Ops; calls take effect in order. A backend may queue them
// (asynchronously on a GPU); Synchronize() waits for all so far. Arguments are checked by the engine, not here. Other
// threads learn by an Event how far the queue is, and reach device memory by a Copier of their own.
//
// Memory: every pointer an op takes is from Allocate() of the same Ops unless it says "host". Activations have
// activation_type() (float32 on the CPU), row-major; weights are prepared once; states, logits and the residual stream,
// which sums what all layers say, are float32.
//
// Ragged rows: ops that look at earlier context take a list of Rows, one per sequence. A prefill is one entry with
// many rows, a decode step many entries with one row each. An entry with no rows is padding.
//
// Repeats: a device may record the ops between BeginRepeat and EndRepeat and replay them as one (a CUDA graph). See
// RepeatKey.
#ifndef SALAMANDER_KERNELS_OPS_H_
#define SALAMANDER_KERNELS_OPS_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/kv_layout.h"
#include "kernels/sampling.h"

namespace salamander::kernels {

// A view of row-major activations: `rows` rows of `cols` elements, `stride` elements from row to row.
struct Matrix {
  void* data = nullptr;
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t stride = 0;
};

// A weight in the backend's own form. Freed with the handle, which must not outlive its Ops.
class Weight {
 public:
  virtual ~Weight() = default;
  virtual int64_t in_features() const = 0;
  virtual int64_t out_features() const = 0;
  // Device memory it takes.
  virtual int64_t bytes() const = 0;
};

// A part of a fused weight: `rows` output features of `cols` inputs, BF16 or float32 as in the checkpoint (host).
// Without data it is random, as random_weight.h says for `seed`, and made on the device: a model of any size to
// measure with needs no checkpoint.
struct WeightPart {
  const void* data = nullptr;
  DType type = DType::kBFloat16;
  int64_t rows = 0;
  int64_t cols = 0;
  uint64_t seed = 0;
};

// A moment in the order of an Ops' queue, see Ops::Record. Any thread.
class Event {
 public:
  virtual ~Event() = default;
  // Blocks until all that was queued before has ended. The device's failure, if it failed by then.
  virtual absl::Status Wait() = 0;
  // Whether Wait would return at once.
  virtual bool Done() = 0;
};

// Copies beside the queue of an Ops, from any one thread at a time. They begin at once and may go on until Wait, side
// by side; until then neither end may change. They are not ordered with queued ops: wait for an Event before reading
// what an op writes; an op called after Wait sees what was copied. Host memory of AllocateHost is fastest. Outlived by
// its Ops.
class Copier {
 public:
  virtual ~Copier() = default;
  virtual absl::Status ToHost(void* to_host, const void* from, int64_t bytes) = 0;
  virtual absl::Status ToDevice(void* to, const void* from_host, int64_t bytes) = 0;
  // Both from Allocate(), `from` also from that of another Ops of the same backend.
  virtual absl::Status OnDevice(void* to, const void* from, int64_t bytes) = 0;
  // Blocks until all bytes are there, or never will be. Also after a failure of one of the others.
  virtual absl::Status Wait() = 0;
};

// The rows of one sequence inside a batch: rows [row, row + rows) are its tokens at positions [position, …).
struct SparseRows {
  int64_t row = 0;
  int64_t rows = 0;
  int64_t position = 0;
  // Device array of the layer's pages, enough for position + rows tokens.
  std::byte* const* pages = nullptr;
};
struct LightningRows {
  int64_t row = 0;
  int64_t rows = 0;
  int64_t position = 0;
  // [heads, head_dim, head_dim] float32: in, the state before `position`; out, after the last row.
  float* state = nullptr;
};

// Heads of a sparse layer. Column layout of its fused projection: q [heads·dim], k [kv_heads·dim], v [kv_heads·dim],
// then the output gate [heads·dim] if the model has one.
struct SparseShape {
  int64_t heads = 0;
  KvLayout kv;
  int64_t init_blocks = 0;
  int64_t local_blocks = 0;  // window_size / 64
  int64_t top_blocks = 0;    // topk + local_blocks: how many block ids a row gets at most
};

// Heads of a lightning layer. Fused columns: q [heads·dim], k [kv_heads·dim], v [kv_heads·dim], then the gate z.
struct LightningShape {
  int64_t heads = 0;
  int64_t kv_heads = 0;
  int64_t head_dim = 0;
  float scale = 1;            // of the output, lightning_scale
  std::vector<float> slopes;  // per head: decay is exp(-slope) a token
};

// Names a sequence of ops that comes again and again, a decode step say. Under one key the ops are the same, in the
// same order, with the same shapes, weights and buffers; only what lists say differs: tokens, positions, and of
// sequences everything. Every list has `rows` entries, each with at most one row, and no sequence exceeds max_tokens.
// Freeing a buffer forgets the repeats that use it.
struct RepeatKey {
  int64_t rows = 0;
  int64_t max_tokens = 0;
  int variant = 0;  // tells apart callers' sequences of ops that are alike in the other two
  auto operator<=>(const RepeatKey&) const = default;
};

class Ops {
 public:
  virtual ~Ops() = default;

  virtual std::string name() const = 0;  // "cpu (avx512, 2 threads)"
  virtual DType activation_type() const = 0;

  // --- memory
  // At least 64-byte aligned, contents undefined, at once usable by ops and copiers. RESOURCE_EXHAUSTED when the device
  // has not that much.
  virtual absl::StatusOr<void*> Allocate(int64_t bytes) = 0;
  // Queued ops may still use it.
  virtual void Free(void* memory) = 0;
  // Returns when `from_host` may change, or if it is of AllocateHost, maybe before: then it may after Synchronize.
  virtual absl::Status CopyToDevice(void* to, const void* from_host, int64_t bytes) = 0;
  // `to_host` is filled after Synchronize.
  virtual absl::Status CopyToHost(void* to_host, const void* from, int64_t bytes) = 0;
  // Of memory that no queued op uses. Done when it returns: a copier may write there next.
  virtual absl::Status Zero(void* memory, int64_t bytes) = 0;
  virtual absl::Status Synchronize() = 0;
  // Device memory that the backend keeps for itself, beside what Allocate gave and weights.
  virtual int64_t own_bytes() const { return 0; }
  // Device memory that this process may still take.
  virtual absl::StatusOr<int64_t> MemoryBytes() = 0;
  // Whether the host may read and write device memory directly.
  virtual bool host_memory() const = 0;
  // Host memory that copies are fastest to and from, 64-byte aligned. RESOURCE_EXHAUSTED when there is none. Both take
  // their time on a GPU. Any thread.
  virtual absl::StatusOr<void*> AllocateHost(int64_t bytes) = 0;
  virtual void FreeHost(void* memory) = 0;

  // --- other threads
  // Marks all queued so far. Never null: a failure is what its Wait returns.
  virtual std::shared_ptr<Event> Record() = 0;
  // Any thread.
  virtual absl::StatusOr<std::unique_ptr<Copier>> NewCopier() = 0;

  // Whether repeats are worth padding a batch for, so that few keys serve all sizes.
  virtual bool records_repeats() const { return false; }
  // Between the two only ops from MatMul on are called. EndRepeat also after a failure in between.
  virtual absl::Status BeginRepeat(const RepeatKey&) { return absl::OkStatus(); }
  virtual absl::Status EndRepeat() { return absl::OkStatus(); }

  // --- weights and matrix products
  // Stacks the parts along their output features; all have the same number of inputs.
  virtual absl::StatusOr<std::unique_ptr<Weight>> PrepareWeight(absl::Span<const WeightPart> parts) = 0;
  // y [n, out] = x [n, in] · weightᵀ (+ bias [out] float32 if not null).
  virtual absl::Status MatMul(const Matrix& x, const Weight& weight, const float* bias, const Matrix& y) = 0;
  // The same with float32 results, for logits.
  virtual absl::Status MatMulLogits(const Matrix& x, const Weight& weight, float* logits, int64_t logits_stride) = 0;

  // --- element-wise
  // hidden [n, D] float32 = row tokens[i] (host) of table [V, D] · scale. The table is a prepared weight of one part.
  virtual absl::Status Embed(absl::Span<const int32_t> tokens, const Weight& table, float scale,
                             const Matrix& hidden) = 0;
  // hidden [n, D] float32 += delta_scale · delta, unless delta.data is null; then
  // x = RMSNorm(hidden, eps) · norm [D] · x_scale.
  // No x wanted: x.data null.
  virtual absl::Status AddRmsNorm(const Matrix& hidden, const Matrix& delta, float delta_scale, const float* norm,
                                  float eps, float x_scale, const Matrix& x) = 0;
  // Per head in place: RMSNorm with weight [dim] (skipped if null), then RoPE at position + row (skipped if
  // theta == 0; halves rotated). `x` is the columns of q or of k: [n, heads·dim].
  virtual absl::Status HeadNormRope(const Matrix& x, int64_t head_dim, const float* norm, float eps, float theta,
                                    absl::Span<const int64_t> positions) = 0;
  // out [n, I] = SiLU(gate_up[:, :I]) · gate_up[:, I:2I].
  virtual absl::Status SiluMul(const Matrix& gate_up, const Matrix& out) = 0;
  // x = RMSNorm over the whole row with weight [cols] (skipped if null), then · sigmoid(gate) (skipped if null data).
  virtual absl::Status NormGate(const Matrix& x, const float* norm, float eps, const Matrix& gate) = 0;

  // --- lightning attention (Lightning Attention-2, arXiv 2401.04658; no factor per layer)
  // S_t = λ S_{t-1} + k_t v_tᵀ;  out_t = scale · q_t S_t. q [n, heads·dim], k and v [n, kv_heads·dim],
  // out [n, heads·dim]. Updates every state in place. Prefill is chunked, one row is the recurrent step.
  virtual absl::Status Lightning(const LightningShape& shape, const Matrix& q, const Matrix& k, const Matrix& v,
                                 absl::Span<const LightningRows> sequences, const Matrix& out) = 0;

  // --- InfLLM-V2 (arXiv 2509.24663)
  // Writes rows of k and v [n, kv_heads·dim] into the pages at their positions. The rest of a last block that these
  // rows begin becomes zero.
  virtual absl::Status AppendKv(const SparseShape& shape, const Matrix& k, const Matrix& v,
                                absl::Span<const SparseRows> sequences) = 0;
  // Computes, from keys in the pages, the K1 and K2 windows of each sequence that end in its rows: those whole in
  // position + rows tokens and not whole in `position`.
  virtual absl::Status PoolTiers(const SparseShape& shape, absl::Span<const SparseRows> sequences) = 0;
  // Stage 1: scores over K2 and K1, pooled to blocks, running top-k; no [rows, windows] array is kept. The lower block
  // wins ties. blocks: [n, kv_heads, top_blocks] int32, ascending, padded with -1. Tiers must reach every row.
  virtual absl::Status SelectBlocks(const SparseShape& shape, const Matrix& q, absl::Span<const SparseRows> sequences,
                                    int32_t* blocks) = 0;
  // Stage 2: causal softmax attention over the chosen blocks. out [n, heads·dim].
  virtual absl::Status AttendBlocks(const SparseShape& shape, const Matrix& q, absl::Span<const SparseRows> sequences,
                                    const int32_t* blocks, const Matrix& out) = 0;
  // Causal softmax attention over everything, for the dense regime.
  virtual absl::Status AttendDense(const SparseShape& shape, const Matrix& q, absl::Span<const SparseRows> sequences,
                                   const Matrix& out) = 0;

  // --- sampling, as sampling.h says
  // Draws a token from each row of logits [rows.size(), vocab_size]; edits are in the order of their rows. The results
  // are filled after Synchronize, host memory of AllocateHost best: tokens [rows.size()], and top [rows.size(),
  // top_stride], of each row the `logprobs` likeliest first, at most vocab_size and top_stride.
  virtual absl::Status Sample(const Matrix& logits, absl::Span<const SampleRow> rows, absl::Span<const LogitEdit> edits,
                              SampledToken* tokens, TokenLogprob* top, int64_t top_stride) = 0;

  // Seconds spent so far in each kind of operation, by name ("matmul", "select_blocks", …), for benchmarks. Any thread.
  virtual std::vector<std::pair<std::string, double>> OpSeconds() const { return {}; }
  // Whether OpSeconds counts from now on, for a backend where that costs time: there it is off at first, and repeats
  // are not replayed while it is on.
  virtual void SetTiming(bool /*on*/) {}
};

// Instruction sets of the CPU backend, worst first.
enum class CpuIsa { kPortable, kAvx2, kAvx512 };
std::string CpuIsaName(CpuIsa isa);
// The best this machine has.
CpuIsa DetectCpuIsa();
// The CPU backend. `threads` ≥ 1 workers including the calling thread; INVALID_ARGUMENT otherwise, or when the machine
// lacks `isa`.
absl::StatusOr<std::unique_ptr<Ops>> CreateCpuOps(int threads, CpuIsa isa = DetectCpuIsa());

}  // namespace salamander::kernels

#endif  // SALAMANDER_KERNELS_OPS_H_
