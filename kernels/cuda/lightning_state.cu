// Passes 1 and 2 of lightning attention over long sequences: the states between their spans (lightning.cuh).
#include "kernels/cuda/lightning.cuh"

namespace salamander::kernels::cuda {
namespace {

constexpr int kThreads = 256;

// One part of one span: Σ_j λ^(last-j) k_j v_jᵀ over its rows, `last` its last. Such parts are whole: only a
// sequence's last span may be short, and its own state is not wanted here.
template <int kDim>
__global__ __launch_bounds__(kThreads, 2) void PartKernel(LightningArgs args) {
  constexpr int kTileBytes = kPartChunk * kDim * 2, kStages = 2;
  // Eight warps as 4 × 2 (2 × 2 if heads are small) tiles of the state.
  constexpr int kTiles = kDim == 128 ? 2 : 1, kPairs = kDim / 32;
  extern __shared__ __align__(128) uint8_t shared[];
  AllowNext();
  WaitForPrevious();
  const int head = blockIdx.y, span = blockIdx.x / kSpanParts, part = blockIdx.x % kSpanParts;
  const LightningSequence sequence = args.sequences[blockIdx.z];
  const SpanCut cut(sequence.rows, args.spans);
  if (span + 1 >= cut.spans) return;
  const float rate = DecayRate(args, head);
  const int64_t begin = PartBegin(cut, rate, span, part), end = span * cut.rows + (part + 1) * cut.part_rows();
  if (begin >= end) return;

  const int64_t kv_col = static_cast<int64_t>(head / args.group) * kDim;
  const bf16* k = args.k.data + sequence.row * args.k.stride + kv_col;
  const bf16* v = args.v.data + sequence.row * args.v.stride + kv_col;
  const uint32_t tiles = SharedAddress(shared);
  auto load = [&](int64_t row, int stage) {
    if (row < end) {
      const uint32_t tile = tiles + stage * 2 * kTileBytes;
      CopyTile<kDim, kPartChunk, kThreads>(threadIdx.x, tile, k, args.k.stride, row, end);
      CopyTile<kDim, kPartChunk, kThreads>(threadIdx.x, tile + kTileBytes, v, args.v.stride, row, end);
    }
    CommitCopies();
  };

  StateTile<kDim, kTiles, kPairs> state;
  const int warp = threadIdx.x / 32;
  state.row = warp / 2 * 16 * kTiles;
  state.col = warp % 2 * 16 * kPairs;
  state.Clear();
  load(begin, 0);
  int stage = 0;
  for (int64_t row = begin; row < end; row += kPartChunk) {
    load(row + kPartChunk, stage ^ 1);
    WaitCopies<kStages - 1>();
    __syncthreads();
    const uint32_t tile = tiles + stage * 2 * kTileBytes;
    if (state.row < kDim) {
      state.Scale(Decay(rate, kPartChunk));
      state.template AddRows<kPartChunk>(tile, tile + kTileBytes, rate, kPartChunk - 1);
    }
    __syncthreads();
    stage ^= 1;
  }
  if (state.row < kDim) state.Store(Slot(args, kDim, blockIdx.z, head, kSpanParts * span + part));
}

// Turns parts into the states before each span, four numbers a thread.
__global__ void ScanKernel(LightningArgs args, int dim) {
  AllowNext();
  WaitForPrevious();
  const int head = blockIdx.y;
  const LightningSequence sequence = args.sequences[blockIdx.z];
  const SpanCut cut(sequence.rows, args.spans);
  if (cut.spans <= 1) return;
  const float rate = DecayRate(args, head), part_decay = Decay(rate, static_cast<int>(cut.part_rows()));
  const int64_t element = (blockIdx.x * kThreads + threadIdx.x) * 4;
  auto at = [&](int slot) { return reinterpret_cast<float4*>(Slot(args, dim, blockIdx.z, head, slot) + element); };

  float4 x = *reinterpret_cast<const float4*>(sequence.state + static_cast<int64_t>(head) * dim * dim + element);
  for (int span = 0; span < cut.spans; ++span) {
    float4 parts[kSpanParts];
#pragma unroll
    for (int part = 0; part < kSpanParts; ++part) {
      const bool wanted =
          span + 1 < cut.spans && PartBegin(cut, rate, span, part) < span * cut.rows + (part + 1) * cut.part_rows();
      parts[part] = wanted ? *at(kSpanParts * span + part) : float4{0, 0, 0, 0};
    }
    *at(kSpanParts * span) = x;
#pragma unroll
    for (const float4& part : parts) {
      x.x = fmaf(x.x, part_decay, part.x);
      x.y = fmaf(x.y, part_decay, part.y);
      x.z = fmaf(x.z, part_decay, part.z);
      x.w = fmaf(x.w, part_decay, part.w);
    }
  }
}

template <int kDim>
cudaError_t Launch(const LightningArgs& args, int count, cudaStream_t stream) {
  constexpr int kSharedBytes = 2 * 2 * kPartChunk * kDim * 2;
  cudaError_t error = cudaFuncSetAttribute(PartKernel<kDim>, cudaFuncAttributeMaxDynamicSharedMemorySize, kSharedBytes);
  if (error != cudaSuccess) return error;
  error = LaunchChained(PartKernel<kDim>, dim3((args.spans - 1) * kSpanParts, args.heads, count), kThreads,
                        size_t{kSharedBytes}, stream, args);
  if (error != cudaSuccess) return error;
  return LaunchChained(ScanKernel, dim3(kDim * kDim / 4 / kThreads, args.heads, count), kThreads, stream, args, kDim);
}

}  // namespace

cudaError_t LightningStates(const LightningArgs& args, int dim, int count, cudaStream_t stream) {
  switch (dim) {
    case 32:
      return Launch<32>(args, count, stream);
    case 64:
      return Launch<64>(args, count, stream);
    case 128:
      return Launch<128>(args, count, stream);
    default:
      return cudaErrorInvalidValue;
  }
}

}  // namespace salamander::kernels::cuda
