// Pass 3 of lightning attention: outputs, span by span (lightning.cuh).
//
// Four warps of a thread block compute outputs, four carry the state. Chunk by chunk, the query warps take their
// products with the bf16 state of shared memory first; meanwhile the state warps add the chunk to the float32 state in
// their registers, and write it as bf16 once the query warps are through with the old one.
#include "kernels/cuda/device/barrier.cuh"
#include "kernels/cuda/lightning.cuh"

namespace salamander::kernels::cuda {
namespace {

constexpr int kRoleThreads = 128;
constexpr int kThreads = 2 * kRoleThreads;
enum Barrier { kChunkBarrier, kStateReadBarrier };

template <int kDimension, int kChunkRows, int kLoadStages>
struct Shape {
  static constexpr int kDim = kDimension, kChunk = kChunkRows, kStages = kLoadStages;
  static constexpr int kTileBytes = kChunk * kDim * 2;
  static constexpr int kStageBytes = 3 * kTileBytes;  // q, k, v
  static constexpr int kStateAt = kStages * kStageBytes;
  static constexpr int kStateBytes = kDim * kDim * 2;
  // With two stages there is room for two states: the next is written while this one is read.
  static constexpr int kSharedBytes = kStateAt + kStages * kStateBytes;
  static constexpr int kKSteps = kDim / 16;
  // Tiles of 16 query rows of a warp: w and, in chunks of 128, 7 - w. Together each warp sees as many keys.
  static constexpr int kQueryTiles = kChunk / 64;
  // Tiles of 16 state rows of a warp; heads of 32 leave two warps idle.
  static constexpr int kStateTiles = kDim == 128 ? 2 : 1;
  static_assert(kChunk == 64 || kChunk == 128);
  static_assert(kStages == 1 || kStages == 2);
};

// Chunks of a span one after the other in shared memory, loaded ahead if there are two stages. All threads go through
// it in step.
template <class S>
class Chunks {
 public:
  __device__ Chunks(const Span& span, uint8_t* shared) : span_(span), shared_(shared) {
    count_ = static_cast<int>((span.rows + S::kChunk - 1) / S::kChunk);
    Load(0);
  }
  __device__ int count() const { return count_; }
  __device__ int rows(int chunk) const {
    return static_cast<int>(min(static_cast<int64_t>(S::kChunk), span_.rows - int64_t{chunk} * S::kChunk));
  }
  __device__ uint8_t* stage(int chunk) const { return shared_ + chunk % S::kStages * S::kStageBytes; }
  // The state before the chunk, bf16.
  __device__ uint8_t* state(int chunk) const { return shared_ + S::kStateAt + chunk % S::kStages * S::kStateBytes; }

  __device__ void Begin(int chunk) {
    WaitCopies<0>();
    BarrierSync(kChunkBarrier, kThreads);
    if constexpr (S::kStages == 2) Load(chunk + 1);
  }
  __device__ void End(int chunk) {
    if constexpr (S::kStages == 1) {
      BarrierSync(kChunkBarrier, kThreads);
      Load(chunk + 1);
    }
  }

 private:
  __device__ void Load(int chunk) {
    if (chunk >= count_) return;
    const uint32_t tile = SharedAddress(stage(chunk));
    const int64_t row = int64_t{chunk} * S::kChunk;
    CopyTile<S::kDim, S::kChunk, kThreads>(threadIdx.x, tile, span_.q, span_.q_stride, row, span_.rows);
    CopyTile<S::kDim, S::kChunk, kThreads>(threadIdx.x, tile + S::kTileBytes, span_.k, span_.k_stride, row, span_.rows);
    CopyTile<S::kDim, S::kChunk, kThreads>(threadIdx.x, tile + 2 * S::kTileBytes, span_.v, span_.v_stride, row,
                                           span_.rows);
    CommitCopies();
  }

  const Span& span_;
  uint8_t* shared_;
  int count_;
};

template <class S>
class QueryWarp {
 public:
  __device__ QueryWarp(const Span& span, int warp) : span_(span), lane_(threadIdx.x % 32) {
    tiles_[0] = warp;
    if constexpr (S::kQueryTiles == 2) tiles_[1] = 7 - warp;
  }
  // The first of its rows in a chunk.
  __device__ int first_row() const { return 16 * tiles_[0]; }

  // out = scale · λ^(i+1) q_i S.
  __device__ void ReadState(uint32_t queries, uint32_t state) {
#pragma unroll
    for (int t = 0; t < S::kQueryTiles; ++t) {
#pragma unroll
      for (int s = 0; s < S::kKSteps; ++s) {
        LoadMatrix4(q_[t][s], queries + Offset(16 * tiles_[t] + lane_ % 16, 2 * s + lane_ / 16));
      }
#pragma unroll
      for (int n = 0; n < 2 * S::kKSteps; ++n) out_[t][n][0] = out_[t][n][1] = out_[t][n][2] = out_[t][n][3] = 0;
    }
#pragma unroll
    for (int s = 0; s < S::kKSteps; ++s) {
#pragma unroll
      for (int n = 0; n < S::kKSteps; ++n) {
        uint32_t b[4];
        LoadMatrix4Transposed(b, state + TileOffset<S::kDim, S::kDim>(16 * s + lane_ % 16, 2 * n + lane_ / 16));
#pragma unroll
        for (int t = 0; t < S::kQueryTiles; ++t) {
          MmaBf16(out_[t][2 * n], q_[t][s], b[0], b[1]);
          MmaBf16(out_[t][2 * n + 1], q_[t][s], b[2], b[3]);
        }
      }
    }
#pragma unroll
    for (int t = 0; t < S::kQueryTiles; ++t) {
      const int row = 16 * tiles_[t] + lane_ / 4;
      const float low = span_.scale * Decay(span_.rate, row + 1), high = span_.scale * Decay(span_.rate, row + 9);
#pragma unroll
      for (int n = 0; n < 2 * S::kKSteps; ++n) {
        out_[t][n][0] *= low;
        out_[t][n][1] *= low;
        out_[t][n][2] *= high;
        out_[t][n][3] *= high;
      }
    }
  }

  // out += scale · Σ_{j ≤ i} λ^(i-j) (q_i · k_j) v_j.
  __device__ void ReadChunk(uint32_t keys, uint32_t values) {
    int j = 0;
    for (; j <= tiles_[0]; ++j) ReadKeys<0>(keys, values, j);
    if constexpr (S::kQueryTiles == 2) {
      for (; j <= tiles_[1]; ++j) ReadKeys<1>(keys, values, j);
    }
  }

  // Writes out, the first `rows` rows of a chunk, by way of this warp's own rows of the query tile: whole lines.
  __device__ void Store(uint8_t* queries, bf16* out, int rows) {
    constexpr int kPieces = S::kDim / 8;
    __syncwarp();
#pragma unroll
    for (int t = 0; t < S::kQueryTiles; ++t) {
      const int row = 16 * tiles_[t] + lane_ / 4;
#pragma unroll
      for (int n = 0; n < 2 * S::kKSteps; ++n) {
        auto put = [&](int r, float x, float y) {
          *reinterpret_cast<uint32_t*>(queries + Offset(r, n) + lane_ % 4 * 4) = PackBf16(x, y);
        };
        put(row, out_[t][n][0], out_[t][n][1]);
        put(row + 8, out_[t][n][2], out_[t][n][3]);
      }
    }
    __syncwarp();
#pragma unroll
    for (int t = 0; t < S::kQueryTiles; ++t) {
#pragma unroll
      for (int i = 0; i < 16 * kPieces; i += 32) {
        const int row = 16 * tiles_[t] + (i + lane_) / kPieces, piece = (i + lane_) % kPieces;
        if (row < rows) {
          *reinterpret_cast<uint4*>(out + row * span_.out_stride + piece * 8) =
              *reinterpret_cast<const uint4*>(queries + Offset(row, piece));
        }
      }
    }
  }

 private:
  __device__ static int Offset(int row, int piece) { return TileOffset<S::kDim, S::kChunk>(row, piece); }

  // Keys and values [16·j, 16·j + 16) of the chunk, for query tiles from kFirst on.
  template <int kFirst>
  __device__ void ReadKeys(uint32_t keys, uint32_t values, int j) {
    float scores[S::kQueryTiles][2][4] = {};
#pragma unroll
    for (int s = 0; s < S::kKSteps; ++s) {
      uint32_t b[4];
      LoadMatrix4(b, keys + Offset(16 * j + lane_ / 16 * 8 + lane_ % 8, 2 * s + lane_ / 8 % 2));
#pragma unroll
      for (int t = kFirst; t < S::kQueryTiles; ++t) {
        MmaBf16(scores[t][0], q_[t][s], b[0], b[1]);
        MmaBf16(scores[t][1], q_[t][s], b[2], b[3]);
      }
    }
    uint32_t a[S::kQueryTiles][4];
#pragma unroll
    for (int t = kFirst; t < S::kQueryTiles; ++t) {
      const int distance = 16 * (tiles_[t] - j) + lane_ / 4 - lane_ % 4 * 2;
#pragma unroll
      for (int n = 0; n < 2; ++n) {
        float x[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          x[i] = scores[t][n][i] * span_.scale * CausalDecay(span_.rate, distance - 8 * n - i % 2 + i / 2 * 8);
        }
        a[t][2 * n] = PackBf16(x[0], x[1]);
        a[t][2 * n + 1] = PackBf16(x[2], x[3]);
      }
    }
#pragma unroll
    for (int n = 0; n < S::kKSteps; ++n) {
      uint32_t b[4];
      LoadMatrix4Transposed(b, values + Offset(16 * j + lane_ % 16, 2 * n + lane_ / 16));
#pragma unroll
      for (int t = kFirst; t < S::kQueryTiles; ++t) {
        MmaBf16(out_[t][2 * n], a[t], b[0], b[1]);
        MmaBf16(out_[t][2 * n + 1], a[t], b[2], b[3]);
      }
    }
  }

  const Span& span_;
  const int lane_;
  int tiles_[S::kQueryTiles];
  uint32_t q_[S::kQueryTiles][S::kKSteps][4];
  float out_[S::kQueryTiles][2 * S::kKSteps][4];
};

template <class S>
__device__ void ComputeOutputs(const Span& span, Chunks<S>& chunks, int warp) {
  QueryWarp<S> queries(span, warp);
  for (int i = 0; i < chunks.count(); ++i) {
    chunks.Begin(i);
    uint8_t* stage = chunks.stage(i);
    const uint32_t tile = SharedAddress(stage);
    const bool any = queries.first_row() < chunks.rows(i);
    if (any) queries.ReadState(tile, SharedAddress(chunks.state(i)));
    if (S::kStages == 1 && i + 1 < chunks.count()) BarrierArrive(kStateReadBarrier, kThreads);
    if (any) {
      queries.ReadChunk(tile + S::kTileBytes, tile + 2 * S::kTileBytes);
      queries.Store(stage, span.out + int64_t{i} * S::kChunk * span.out_stride, chunks.rows(i));
    }
    chunks.End(i);
  }
}

template <class S>
__device__ void CarryState(const Span& span, Chunks<S>& chunks, int warp) {
  StateTile<S::kDim, S::kStateTiles, S::kDim / 16> state;
  state.row = warp * 16 * S::kStateTiles;
  state.col = 0;
  const bool any = state.row < S::kDim;
  if (any) {
    state.Load(span.state_before);
    state.StoreBf16(chunks.state(0));
  }
  for (int i = 0; i < chunks.count(); ++i) {
    chunks.Begin(i);
    const bool last = i + 1 == chunks.count();
    if (any && (!last || span.state_after != nullptr)) {
      const uint32_t tile = SharedAddress(chunks.stage(i));
      const int rows = chunks.rows(i);
      state.Scale(Decay(span.rate, rows));
      state.template AddRows<S::kChunk>(tile + S::kTileBytes, tile + 2 * S::kTileBytes, span.rate, rows - 1);
    }
    if (!last) {
      if constexpr (S::kStages == 1) BarrierSync(kStateReadBarrier, kThreads);
      if (any) state.StoreBf16(chunks.state(i + 1));
    }
    chunks.End(i);
  }
  if (any && span.state_after != nullptr) state.Store(span.state_after);
}

template <class S>
__global__ __launch_bounds__(kThreads, 1) void ChunkKernel(LightningArgs args) {
  extern __shared__ __align__(128) uint8_t shared[];
  AllowNext();
  WaitForPrevious();
  const Span span = MakeSpan<S::kDim>(args);
  if (span.rows == 0) return;
  Chunks<S> chunks(span, shared);
  const int warp = threadIdx.x / 32;
  if (warp < kRoleThreads / 32) {
    ComputeOutputs<S>(span, chunks, warp);
  } else {
    CarryState<S>(span, chunks, warp - kRoleThreads / 32);
  }
}

template <class S>
cudaError_t Launch(const LightningArgs& args, int count, cudaStream_t stream) {
  const cudaError_t error =
      cudaFuncSetAttribute(ChunkKernel<S>, cudaFuncAttributeMaxDynamicSharedMemorySize, S::kSharedBytes);
  if (error != cudaSuccess) return error;
  return LaunchChained(ChunkKernel<S>, dim3(args.spans, args.heads, count), kThreads, size_t{S::kSharedBytes}, stream,
                       args);
}

// Small heads on Hopper: twice the rows, loaded ahead.
template <int kDim>
cudaError_t LaunchSmall(Arch arch, const LightningArgs& args, int count, cudaStream_t stream) {
  return arch == Arch::kSm90a ? Launch<Shape<kDim, 128, 2>>(args, count, stream)
                              : Launch<Shape<kDim, 64, 1>>(args, count, stream);
}

}  // namespace

cudaError_t LightningChunks(const LightningArgs& args, int dim, int count, Arch arch, cudaStream_t stream) {
  switch (dim) {
    case 32:
      return LaunchSmall<32>(arch, args, count, stream);
    case 64:
      return LaunchSmall<64>(arch, args, count, stream);
    case 128:
      // 80 KiB of shared memory, as every card has.
      return arch == Arch::kSm90a ? LightningChunksSm90a(args, count, stream)
                                  : Launch<Shape<128, 64, 1>>(args, count, stream);
    default:
      return cudaErrorInvalidValue;
  }
}

}  // namespace salamander::kernels::cuda
