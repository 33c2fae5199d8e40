// Pass 3 of lightning attention (lightning.cuh) on Hopper, for heads of 128, with products of warpgroups.
//
// One warpgroup computes outputs of chunks of 64 rows; two carry the float32 state, 64 of its rows each, in registers,
// and load the chunks after next. All meet once a chunk: states as bf16 are in shared memory twice, so that the next is
// written while the last is read.
#include "kernels/cuda/device/barrier.cuh"
#include "kernels/cuda/device/mbarrier.cuh"
#include "kernels/cuda/device/wgmma.cuh"
#include "kernels/cuda/lightning.cuh"

namespace salamander::kernels::cuda {
namespace {

constexpr int kDim = 128, kChunk = 64, kStages = 3;
constexpr int kQueryThreads = 128, kStateThreads = 256, kThreads = kQueryThreads + kStateThreads;
constexpr int kPanelBytes = kChunk * 128, kTileBytes = 2 * kPanelBytes;
constexpr int kStageBytes = 3 * kTileBytes;  // q, k, v
constexpr int kStatePanelBytes = kDim * 128, kStateBytes = 2 * kStatePanelBytes;
constexpr int kStatesAt = kStages * kStageBytes;
constexpr int kSharedBytes = kStatesAt + 2 * kStateBytes;
constexpr int kChunkBarrier = 1;
constexpr int kKSteps = kDim / 16, kKeySteps = kChunk / 16;

struct Chunk {
  int index, rows;
  uint32_t queries, keys, values;
  uint32_t state;  // before it

  __device__ Chunk(const Span& span, uint32_t shared, int i) : index(i) {
    rows = static_cast<int>(min(static_cast<int64_t>(kChunk), span.rows - int64_t{i} * kChunk));
    queries = shared + i % kStages * kStageBytes;
    keys = queries + kTileBytes;
    values = keys + kTileBytes;
    state = shared + kStatesAt + i % 2 * kStateBytes;
  }
};

__device__ void ComputeChunk(const Span& span, const Chunk& chunk) {
  const int lane = threadIdx.x % 32, first = threadIdx.x / 32 * 16;  // of the rows of this warp
  uint32_t q[kKSteps][4];
#pragma unroll
  for (int s = 0; s < kKSteps; ++s) {
    LoadMatrix4(q[s], chunk.queries + TileOffset<kDim, kChunk>(first + lane % 16, 2 * s + lane / 16));
  }
  float scores[kChunk / 8][4] = {}, out[kDim / 8][4] = {};
  PinRegisters(q);
  PinRegisters(scores);
  PinRegisters(out);
  WgmmaFence();
#pragma unroll
  for (int s = 0; s < kKSteps; ++s) {
    Wgmma<false>(scores, q[s], SwizzledOperand(chunk.keys + s / 4 * kPanelBytes + s % 4 * 32), s > 0);
  }
  WgmmaCommit();
#pragma unroll
  for (int s = 0; s < kKSteps; ++s) {
    Wgmma<true>(out, q[s], SwizzledOperand(chunk.state + s * 16 * 128, kStatePanelBytes), s > 0);
  }
  WgmmaCommit();
  WgmmaWait<1>();
  PinRegisters(scores);

  const int row = first + lane / 4, col = lane % 4 * 2;
  uint32_t a[kKeySteps][4];
#pragma unroll
  for (int n = 0; n < kChunk / 8; ++n) {
    float x[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      x[i] = scores[n][i] * span.scale * CausalDecay(span.rate, row + i / 2 * 8 - (8 * n + col + i % 2));
    }
    a[n / 2][n % 2 * 2] = PackBf16(x[0], x[1]);
    a[n / 2][n % 2 * 2 + 1] = PackBf16(x[2], x[3]);
  }
  PinRegisters(a);
  WgmmaWait<0>();
  PinRegisters(out);
  const float low = span.scale * Decay(span.rate, row + 1), high = span.scale * Decay(span.rate, row + 9);
#pragma unroll
  for (int n = 0; n < kDim / 8; ++n) {
    out[n][0] *= low;
    out[n][1] *= low;
    out[n][2] *= high;
    out[n][3] *= high;
  }
  PinRegisters(a);
  PinRegisters(out);
  WgmmaFence();
#pragma unroll
  for (int s = 0; s < kKeySteps; ++s) {
    Wgmma<true>(out, a[s], SwizzledOperand(chunk.values + s * 16 * 128, kPanelBytes), true);
  }
  WgmmaCommit();
  WgmmaWait<0>();
  PinRegisters(out);

  // Neighbouring lanes swap, so that four lanes together write 32 bytes of a row: a whole sector.
  const bool odd = lane % 2 == 1;
  bf16* rows = span.out + (int64_t{chunk.index} * kChunk + row) * span.out_stride + (odd ? 8 + col - 2 : col);
#pragma unroll
  for (int half = 0; half < 2; ++half) {
#pragma unroll
    for (int n = 0; n < kDim / 8; n += 2) {
      const uint32_t left = PackBf16(out[n][2 * half], out[n][2 * half + 1]);
      const uint32_t right = PackBf16(out[n + 1][2 * half], out[n + 1][2 * half + 1]);
      const uint32_t other = __shfl_xor_sync(kAllLanes, odd ? left : right, 1);
      if (row + 8 * half < chunk.rows) {
        *reinterpret_cast<uint2*>(rows + 8 * half * span.out_stride + 8 * n) =
            odd ? make_uint2(other, right) : make_uint2(left, other);
      }
    }
  }
}

[[maybe_unused]] __device__ void ComputeOutputs(const Span& span, uint32_t shared, int chunks) {
  for (int i = 0; i < chunks; ++i) {
    BarrierSync(kChunkBarrier, kThreads);
    ComputeChunk(span, Chunk(span, shared, i));
  }
}

[[maybe_unused]] __device__ void CarryState(const Span& span, uint8_t* memory, int chunks) {
  const uint32_t shared = SharedAddress(memory);
  const int thread = threadIdx.x - kQueryThreads;
  auto load = [&](int i) {
    if (i < chunks) {
      const Chunk chunk(span, shared, i);
      const int64_t row = int64_t{i} * kChunk;
      CopyTile<kDim, kChunk, kStateThreads>(thread, chunk.queries, span.q, span.q_stride, row, span.rows);
      CopyTile<kDim, kChunk, kStateThreads>(thread, chunk.keys, span.k, span.k_stride, row, span.rows);
      CopyTile<kDim, kChunk, kStateThreads>(thread, chunk.values, span.v, span.v_stride, row, span.rows);
    }
    CommitCopies();
  };
  load(0);
  load(1);
  StateTile<kDim, 1, kDim / 16> state;
  state.row = thread / 32 * 16;
  state.col = 0;
  state.Load(span.state_before);
  state.StoreBf16(memory + kStatesAt);
  for (int i = 0; i < chunks; ++i) {
    WaitCopies<1>();
    FenceAsyncProxy();
    BarrierSync(kChunkBarrier, kThreads);
    load(i + 2);
    const Chunk chunk(span, shared, i);
    const bool last = i + 1 == chunks;
    if (!last || span.state_after != nullptr) {
      uint32_t a[kKeySteps][4];
#pragma unroll
      for (int s = 0; s < kKeySteps; ++s) {
        LoadDecayedKeys<kDim, kChunk>(a[s], chunk.keys, span.rate, chunk.rows - 1, 16 * s, state.row);
      }
      state.Scale(Decay(span.rate, chunk.rows));
      PinRegisters(a);
      PinRegisters(state.sums[0]);
      WgmmaFence();
#pragma unroll
      for (int s = 0; s < kKeySteps; ++s) {
        Wgmma<true>(state.sums[0], a[s], SwizzledOperand(chunk.values + s * 16 * 128, kPanelBytes), true);
      }
      WgmmaCommit();
      WgmmaWait<0>();
      PinRegisters(state.sums[0]);
    }
    if (!last) state.StoreBf16(memory + kStatesAt + (i + 1) % 2 * kStateBytes);
  }
  if (span.state_after != nullptr) state.Store(span.state_after);
}

__global__ __launch_bounds__(kThreads, 1) void ChunkSm90aKernel(LightningArgs args) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  extern __shared__ __align__(1024) uint8_t shared[];
  AllowNext();
  WaitForPrevious();
  const Span span = MakeSpan<kDim>(args);
  if (span.rows == 0) return;
  const int chunks = static_cast<int>((span.rows + kChunk - 1) / kChunk);
  if (threadIdx.x < kQueryThreads) {
    ComputeOutputs(span, SharedAddress(shared), chunks);
  } else {
    CarryState(span, shared, chunks);
  }
#endif
}

}  // namespace

cudaError_t LightningChunksSm90a(const LightningArgs& args, int count, cudaStream_t stream) {
  const cudaError_t error =
      cudaFuncSetAttribute(ChunkSm90aKernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kSharedBytes);
  if (error != cudaSuccess) return error;
  return LaunchChained(ChunkSm90aKernel, dim3(args.spans, args.heads, count), kThreads, size_t{kSharedBytes}, stream,
                       args);
}

}  // namespace salamander::kernels::cuda
