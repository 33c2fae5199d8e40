// Every CUDA kernel of this backend as a host function: kernels (.cu files) on one side, CudaOps on the other.
//
// Each function only enqueues on `stream`, allocates nothing and reads no device memory on the host, so that it can be
// captured into a CUDA graph. It returns the launch's error; kernels themselves never fail. Activations, keys, values
// and tiers are bf16; the residual stream, states, norms and log-sum-exps are float32. Strides count elements.
//
// Repeats: a captured launch is replayed with other contents behind its device pointers (positions, pages, states,
// lengths), so grids depend on nothing but what stands in the parameters here. Sequences with rows == 0 are padding:
// kernels skip them.
//
// Head sizes 32, 64 and 128 are compiled; CudaOps refuses others by name.
#ifndef SALAMANDER_KERNELS_CUDA_LAUNCH_H_
#define SALAMANDER_KERNELS_CUDA_LAUNCH_H_

#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

#include "kernels/kv_layout.h"
#include "kernels/sampling.h"

namespace salamander::kernels::cuda {

using bf16 = __nv_bfloat16;

// Instruction sets of the kernels, worst first. sm_80 code runs on every card from Ampere on; sm_90a adds warpgroup
// products and the bulk copy engine of Hopper.
enum class Arch { kSm80, kSm90a };

// As SparseRows and LightningRows of ops.h, in device memory. `pages` is a device array too.
struct SparseSequence {
  int64_t row = 0;
  int64_t rows = 0;
  int64_t position = 0;
  std::byte* const* pages = nullptr;
};
struct LightningSequence {
  int64_t row = 0;
  int64_t rows = 0;
  int64_t position = 0;
  float* state = nullptr;
};

struct ConstRows {
  const bf16* data = nullptr;
  int64_t stride = 0;
};
struct Rows {
  bf16* data = nullptr;
  int64_t stride = 0;
};
struct FloatRows {
  float* data = nullptr;
  int64_t stride = 0;
};

// --- elementwise.cu: embedding, norms, RoPE, activations, gates. All [rows, cols].
// hidden = table[token] · scale; tokens on the device.
cudaError_t Embed(const int32_t* tokens, int64_t rows, int64_t cols, const bf16* table, float scale, FloatRows hidden,
                  cudaStream_t stream);
// hidden += delta_scale · delta (delta.data null: not), then x = RMSNorm(hidden) · norm · x_scale (x.data null: not).
cudaError_t AddRmsNorm(FloatRows hidden, ConstRows delta, float delta_scale, const float* norm, float eps,
                       float x_scale, Rows x, int64_t rows, int64_t cols, cudaStream_t stream);
// In place on [rows, heads, dim]. norm null: none; theta 0: no RoPE. positions null: row i is at first_position + i.
cudaError_t HeadNormRope(Rows x, int64_t rows, int64_t heads, int64_t dim, const float* norm, float eps, float theta,
                         const int64_t* positions, int64_t first_position, cudaStream_t stream);
// out [rows, cols] = SiLU(gate_up[:, :cols]) · gate_up[:, cols:2·cols].
cudaError_t SiluMul(ConstRows gate_up, Rows out, int64_t rows, int64_t cols, cudaStream_t stream);
// x = RMSNorm(x) · norm (norm null: not), then · sigmoid(gate) (gate.data null: not).
cudaError_t NormGate(Rows x, const float* norm, float eps, ConstRows gate, int64_t rows, int64_t cols,
                     cudaStream_t stream);
// y += bias [cols] float32.
cudaError_t AddBias(Rows y, const float* bias, int64_t rows, int64_t cols, cudaStream_t stream);

// --- gemv.cu: y [rows, out] = x [rows, in] · weight [out, in]ᵀ for few rows (at most kGemvRows), at the speed of
// memory. Exactly one of y and logits (float32) is not null. The weight is read ahead of kernels enqueued before: none
// of them may write it.
inline constexpr int64_t kGemvRows = 16;
struct GemvParams {
  ConstRows x;
  const bf16* weight = nullptr;
  int64_t rows = 0, in = 0, out = 0;
  Rows y;
  float* logits = nullptr;
  int64_t logits_stride = 0;
};
cudaError_t Gemv(const GemvParams& params, cudaStream_t stream);

// --- kv.cu: pages.
struct SparseParams {
  KvLayout kv;
  int64_t heads = 0;
  int64_t init_blocks = 0, local_blocks = 0, top_blocks = 0;
  const SparseSequence* sequences = nullptr;  // [count], device
  int64_t count = 0;
  // Bounds over all sequences that hold at every replay: rows of one, and position + rows of one.
  int64_t max_rows = 0;
  int64_t max_tokens = 0;
  Arch arch = Arch::kSm80;
  int multiprocessors = 0;
};
// Writes rows of k and v [n, kv_heads·dim] into the pages; zeroes the rest of a block that these rows begin.
cudaError_t AppendKv(const SparseParams& params, ConstRows k, ConstRows v, cudaStream_t stream);
// K1 and K2 windows that end in (position, position + rows] of each sequence. Means in float32, in ascending order.
cudaError_t PoolTiers(const SparseParams& params, cudaStream_t stream);

// --- select_*.cu: stage 1, InfLLM-V2 (arXiv 2509.24663). blocks [n, kv_heads, top_blocks], ascending, padded by -1.
// max_rows == 1: the decode form, each token spread over many thread blocks.
int64_t SelectWorkspaceBytes(const SparseParams& params);
cudaError_t SelectBlocks(const SparseParams& params, ConstRows q, int32_t* blocks, void* workspace,
                         cudaStream_t stream);

// --- attend_*.cu: stage 2 and dense attention. out [n, heads·dim]. max_rows == 1: the decode form.
int64_t AttendWorkspaceBytes(const SparseParams& params);
cudaError_t AttendBlocks(const SparseParams& params, ConstRows q, const int32_t* blocks, Rows out, void* workspace,
                         cudaStream_t stream);
cudaError_t AttendDense(const SparseParams& params, ConstRows q, Rows out, void* workspace, cudaStream_t stream);

// --- lightning_*.cu: Lightning Attention-2 (arXiv 2401.04658). max_rows == 1: the recurrent step.
struct LightningParams {
  int64_t heads = 0, kv_heads = 0, dim = 0;
  float scale = 1;
  const float* slopes = nullptr;                 // [heads], device
  const LightningSequence* sequences = nullptr;  // [count], device
  int64_t count = 0;
  int64_t max_rows = 0;
  Arch arch = Arch::kSm80;
  int multiprocessors = 0;
};
int64_t LightningWorkspaceBytes(const LightningParams& params);
cudaError_t Lightning(const LightningParams& params, ConstRows q, ConstRows k, ConstRows v, Rows out, void* workspace,
                      cudaStream_t stream);

// --- sample.cu, as sampling.h says. Logits are float32.
// In place on rows of `stride`; edits on the device, no two of one row and token.
cudaError_t EditLogits(const LogitEdit* edits, int64_t count, float* logits, int64_t stride, cudaStream_t stream);
struct SampleItem {
  const float* logits = nullptr;  // of the model
  const float* edited = nullptr;  // the same where nothing was edited
  SampleRow row;
};
// items, tokens and top (see Ops::Sample) on the device.
cudaError_t SampleTokens(const SampleItem* items, int64_t count, int64_t vocab, SampledToken* tokens, TokenLogprob* top,
                         int64_t top_stride, Arch arch, cudaStream_t stream);

// --- random_weight.cu: weight [rows, cols] of random_weight.h.
cudaError_t FillRandom(bf16* weight, int64_t rows, int64_t cols, uint64_t seed, cudaStream_t stream);
// cudaErrorNoKernelImageForDevice if these files were not compiled for the current device.
cudaError_t CheckDeviceCode();

}  // namespace salamander::kernels::cuda

#endif  // SALAMANDER_KERNELS_CUDA_LAUNCH_H_
