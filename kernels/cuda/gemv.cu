// Products of a few rows with a large weight, bound by reading the weight once.
//
// One thread block a multiprocessor has all of its shared memory, and a share of the output features, over all inputs.
// Its warps share the inputs out: of every 512 columns a warp has 64. A warp streams its columns of 16 features at a
// time through a ring of its own in shared memory, so deep that it fills while kernels before this one still run, and
// waits for no other warp until 32 features are done, when their sums meet. The rows of x stay in registers, as far as
// 4096 columns of them.
//
// Tensor core products take features as the rows of A and tokens as the columns of B. The sum over inputs may be taken
// in any order, so lane (g, t) of a fragment (mma.cuh) takes columns 8t … 8t+7 of features g and g + 8, and of token g,
// in one 16-byte load each; the four pairs of columns stand for the pairs 2t and 2t+8 of two products.
//
// More than 16 rows: cuBLASLt. Measured on an H200 with 32 rows, of which half as many columns stay in registers: x,
// read again in every pass, then takes half as much of the L2 cache's rate as the weight, and a decode step 9.2 ms,
// not 7.9.
//
// How inputs are shared out depends on their number alone: what a row yields never depends on the rows beside it.
#include <algorithm>

#include "kernels/cuda/device/chained.cuh"
#include "kernels/cuda/device/mma.cuh"
#include "kernels/cuda/device/pieces.cuh"
#include "kernels/cuda/launch.h"

namespace salamander::kernels::cuda {
namespace {

constexpr int kWarps = 8, kThreads = kWarps * 32;
// A stage of the ring: kTileFeatures rows of kStageCols columns, of one warp. A round: of all warps. A phase: of what
// rows of x stay in registers. A pass: of features whose sums do.
constexpr int kStageCols = 64, kRoundCols = kWarps * kStageCols;
constexpr int kPhaseRounds = 8, kPhaseCols = kPhaseRounds * kRoundCols;
constexpr int kTileFeatures = 16, kPassTiles = 2, kPassFeatures = kPassTiles * kTileFeatures;
constexpr int kStageRowBytes = kStageCols * static_cast<int>(sizeof(bf16));
constexpr int kStageBytes = kTileFeatures * kStageRowBytes;
constexpr int kStagePieces = kStageCols / kPieceCols;
// Of a row of a stage in one 16-byte load of a fragment.
constexpr int kLoadCols = 32, kStageLoads = kStageCols / kLoadCols;
constexpr int kGroupTokens = 8;  // columns of B

// Where a stage has 16 bytes. Odd rows have their halves swapped: pieces t of rows g and g + 1 lie in different banks.
__device__ inline int StageOffset(int row, int piece) {
  return row * kStageRowBytes + (piece ^ (row % 2 * (kStagePieces / 2))) * 16;
}

// The stages of one warp, in the order in which they are used: of each pass, of each phase, of each tile, all rounds.
template <int kStages>
class WeightStream {
 public:
  __device__ WeightStream(const GemvParams& params, int64_t first_feature, int features, std::byte* ring)
      : weight_(params.weight),
        in_(static_cast<int>(params.in)),
        features_(features),
        row_(threadIdx.x % 32 / kStagePieces),
        lane_col_(threadIdx.x / 32 * kStageCols + threadIdx.x % kStagePieces * kPieceCols),
        from_(params.weight + (first_feature + row_) * params.in + lane_col_),
        to_(SharedAddress(ring) + StageOffset(row_, threadIdx.x % kStagePieces)) {}

  // Starts the next stage's copies, if there is one.
  __device__ void Load() {
    if (pass_ < features_) {
      const int left = features_ - pass_ - tile_;
      const bf16* from = from_ + static_cast<int64_t>(pass_ + tile_) * in_ + col_;
      const uint32_t to = to_ + slot_ * kStageBytes;
      if (left >= kTileFeatures && col_ + kRoundCols <= in_) {
#pragma unroll
        for (int row = 0; row < kTileFeatures; row += kCopyRows) {
          CopyAsync16(to + row * kStageRowBytes, from + static_cast<int64_t>(row) * in_);
        }
      } else {
        // Columns past the last are zeros; what stands for features past the last is not used.
        const bool inside = col_ + lane_col_ < in_;
#pragma unroll 1
        for (int row = 0; row + row_ < min(left, kTileFeatures); row += kCopyRows) {
          CopyAsync16(to + row * kStageRowBytes, inside ? from + static_cast<int64_t>(row) * in_ : weight_,
                      inside ? 16 : 0);
        }
      }
      Advance();
    }
    CommitCopies();
    slot_ = slot_ == kStages - 1 ? 0 : slot_ + 1;
  }

 private:
  static constexpr int kCopyRows = 32 / kStagePieces;  // of all lanes at once

  __device__ void Advance() {
    col_ += kRoundCols;
    if (col_ < in_ && col_ % kPhaseCols != 0) return;
    tile_ += kTileFeatures;
    if (tile_ == kPassFeatures || pass_ + tile_ >= features_) {
      tile_ = 0;
      phase_ += kPhaseCols;
      if (phase_ >= in_) {
        phase_ = 0;
        pass_ += kPassFeatures;
      }
    }
    col_ = phase_;
  }

  const bf16* weight_;
  const int in_, features_;
  const int row_, lane_col_;  // of this lane in a stage
  const bf16* from_;
  const uint32_t to_;
  int slot_ = 0;
  int pass_ = 0, tile_ = 0, phase_ = 0, col_ = 0;  // of the next stage; pass and tile are features, phase a column
};

// Columns of x, of kGroups · 8 tokens, as the B of products.
template <int kGroups, bool kAlignedX>
class Tokens {
 public:
  // This warp's columns of the phase that begins at column `phase`.
  __device__ void Load(const GemvParams& params, int phase) {
    const int col = phase + threadIdx.x / 32 * kStageCols + threadIdx.x % 4 * kPieceCols;
#pragma unroll
    for (int round = 0; round < kPhaseRounds; ++round) {
#pragma unroll
      for (int load = 0; load < kStageLoads; ++load) {
#pragma unroll
        for (int group = 0; group < kGroups; ++group) {
          pieces_[round][load][group] = Piece(params, group * kGroupTokens + static_cast<int>(threadIdx.x) % 32 / 4,
                                              col + round * kRoundCols + load * kLoadCols);
        }
      }
    }
  }
  __device__ const uint4& piece(int round, int load, int group) const { return pieces_[round][load][group]; }

 private:
  __device__ static uint4 Piece(const GemvParams& params, int token, int col) {
    if (token >= params.rows || col >= params.in) return {};
    const bf16* x = params.x.data + token * params.x.stride + col;
    if constexpr (kAlignedX) return *reinterpret_cast<const uint4*>(x);
    float values[kPieceCols];
    LoadPiece<false>(x, 0, kPieceCols, values);
    return PackPiece(values);
  }

  uint4 pieces_[kPhaseRounds][kStageLoads][kGroups];
};

// Sums of one warp's columns, [feature of the pass][token]; one more than tokens keeps lanes in different banks.
template <int kGroups>
struct Partial {
  static constexpr int kTokens = kGroups * kGroupTokens;
  float sums[kPassFeatures][kTokens + 1];

  __device__ void Store(const float (&from)[kPassTiles][kGroups][4]) {
    const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
#pragma unroll
    for (int tile = 0; tile < kPassTiles; ++tile) {
#pragma unroll
      for (int group = 0; group < kGroups; ++group) {
#pragma unroll
        for (int c = 0; c < 4; ++c) {
          sums[tile * kTileFeatures + g + c / 2 * 8][group * kGroupTokens + 2 * t + c % 2] = from[tile][group][c];
        }
      }
    }
  }
};

template <int kGroups, int kStages>
constexpr int kSharedBytes = kWarps*(kStages* kStageBytes + static_cast<int>(sizeof(Partial<kGroups>)));

// Writes features [first, first + count) of the sums of all warps.
template <int kGroups>
__device__ inline void WriteSums(const GemvParams& params, const Partial<kGroups>* partials, int64_t first, int count) {
  for (int i = threadIdx.x; i < static_cast<int>(params.rows) * kPassFeatures; i += kThreads) {
    const int token = i / kPassFeatures, feature = i % kPassFeatures;
    if (feature >= count) continue;
    float sum = 0;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) sum += partials[w].sums[feature][token];
    if (params.logits != nullptr) {
      params.logits[token * params.logits_stride + first + feature] = sum;
    } else {
      params.y.data[token * params.y.stride + first + feature] = __float2bfloat16(sum);
    }
  }
}

// Eight tokens leave half of a multiprocessor's registers to the kernels before and after.
template <int kGroups, int kStages, bool kAlignedX>
__global__ void __launch_bounds__(kThreads, kGroups == 1 ? 2 : 1)
    GemvKernel(const __grid_constant__ GemvParams params) {
  extern __shared__ __align__(128) std::byte shared[];
  const int warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
  const int64_t first = blockIdx.x * params.out / gridDim.x;
  const int features = static_cast<int>((blockIdx.x + 1) * params.out / gridDim.x - first);
  const int in = static_cast<int>(params.in);
  std::byte* ring = shared + warp * kStages * kStageBytes;
  auto* partials = reinterpret_cast<Partial<kGroups>*>(shared + kWarps * kStages * kStageBytes);

  WeightStream<kStages> stream(params, first, features, ring);
  for (int stage = 0; stage < kStages; ++stage) stream.Load();
  WaitForPrevious();
  AllowNext();

  Tokens<kGroups, kAlignedX> x;
  int slot = 0;
  for (int pass = 0; pass < features; pass += kPassFeatures) {
    float sums[kPassTiles][kGroups][4] = {};
    for (int phase = 0; phase < in; phase += kPhaseCols) {
      if (pass == 0 || in > kPhaseCols) x.Load(params, phase);
#pragma unroll
      for (int tile = 0; tile < kPassTiles; ++tile) {
        if (pass + tile * kTileFeatures >= features) break;
#pragma unroll
        for (int round = 0; round < kPhaseRounds; ++round) {
          if (phase + round * kRoundCols >= in) break;
          WaitCopies<kStages - 1>();
          __syncwarp();  // all lanes' copies
          const std::byte* stage = ring + slot * kStageBytes;
          uint4 low[kStageLoads], high[kStageLoads];
#pragma unroll
          for (int load = 0; load < kStageLoads; ++load) {
            const std::byte* piece = stage + StageOffset(g, load * (kLoadCols / kPieceCols) + t);
            low[load] = *reinterpret_cast<const uint4*>(piece);
            high[load] = *reinterpret_cast<const uint4*>(piece + 8 * kStageRowBytes);
          }
          __syncwarp();  // all lanes are done with the stage
          stream.Load();
          slot = slot == kStages - 1 ? 0 : slot + 1;
#pragma unroll
          for (int load = 0; load < kStageLoads; ++load) {
#pragma unroll
            for (int group = 0; group < kGroups; ++group) {
              const uint4& b = x.piece(round, load, group);
              const uint4 &l = low[load], &h = high[load];
              MmaBf16(sums[tile][group], {l.x, h.x, l.y, h.y}, b.x, b.y);
              MmaBf16(sums[tile][group], {l.z, h.z, l.w, h.w}, b.z, b.w);
            }
          }
        }
      }
    }
    if (pass > 0) __syncthreads();  // the sums of the pass before are written
    partials[warp].Store(sums);
    __syncthreads();
    WriteSums(params, partials, first + pass, min(features - pass, kPassFeatures));
  }
}

template <int kGroups, int kStages>
cudaError_t Launch(const GemvParams& params, int blocks, cudaStream_t stream) {
  auto* kernel = PiecesAligned(params.x.data, params.x.stride, params.in) ? GemvKernel<kGroups, kStages, true>
                                                                          : GemvKernel<kGroups, kStages, false>;
  constexpr int kShared = kSharedBytes<kGroups, kStages>;
  const cudaError_t error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kShared);
  if (error != cudaSuccess) return error;
  return LaunchChained(kernel, static_cast<unsigned>(blocks), kThreads, size_t{kShared}, stream, params);
}

template <int kGroups>
cudaError_t LaunchFor(const GemvParams& params, cudaStream_t stream) {
  int device = 0, multiprocessors = 0, shared = 0;
  cudaError_t error = cudaGetDevice(&device);
  if (error == cudaSuccess) {
    error = cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device);
  }
  if (error == cudaSuccess) {
    error = cudaDeviceGetAttribute(&shared, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
  }
  if (error != cudaSuccess) return error;
  // A few features a thread block at least.
  const int blocks = static_cast<int>(std::min<int64_t>(multiprocessors, CeilDiv(params.out, 4)));
  constexpr int kMany = 12, kFew = 4;  // of Hopper's 227 KiB, and of any card's 99 KiB
  return shared >= kSharedBytes<kGroups, kMany> ? Launch<kGroups, kMany>(params, blocks, stream)
                                                : Launch<kGroups, kFew>(params, blocks, stream);
}

}  // namespace

cudaError_t Gemv(const GemvParams& params, cudaStream_t stream) {
  if (params.rows == 0) return cudaSuccess;
  if (params.rows > kGemvRows || !PiecesAligned(params.weight, params.in, params.in)) return cudaErrorInvalidValue;
  return params.rows <= kGroupTokens ? LaunchFor<1>(params, stream) : LaunchFor<2>(params, stream);
}

}  // namespace salamander::kernels::cuda
