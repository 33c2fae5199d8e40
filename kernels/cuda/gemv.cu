// Products of a few rows with a large weight, bound by reading the weight once.
//
// A thread block takes 16 or 32 output features over all inputs; its warps share the inputs out in steps of 64 columns.
// The products are tensor core products with the features as the rows of A and the tokens as the columns of B, so that
// up to 16 tokens cost no more than one, and neither operand passes through shared memory: the sum over inputs may be
// taken in any order, so lane (g, t) of a fragment takes columns 8t … 8t+7 of feature g, and of token g, as one 16-byte
// load each, four pairs of columns that stand for the pairs 2t and 2t+8 of two products (mma.cuh). How inputs are
// shared out depends on their number alone: what a row yields never depends on its batch-mates.
#include "kernels/cuda/device/mma.cuh"
#include "kernels/cuda/device/pieces.cuh"
#include "kernels/cuda/launch.h"

namespace salamander::kernels::cuda {
namespace {

constexpr int kWarps = 8, kThreads = kWarps * 32;
constexpr int kStepCols = 64, kStepHalves = 2;
constexpr int kTileFeatures = 16, kTileTokens = 8;

// Read once: no place in the L1 cache, where x stays.
__device__ inline uint4 LoadStreamed(const bf16* data) {
  uint4 bits;
  asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];\n"
               : "=r"(bits.x), "=r"(bits.y), "=r"(bits.z), "=r"(bits.w)
               : "l"(data));
  return bits;
}

template <int kFeatureTiles, int kTokenTiles, bool kAlignedX>
class GemvTile {
 public:
  // Loads under way are counted in batches of eight a lane, one batch ahead of the products.
  static constexpr int kSteps = 2 / kFeatureTiles;
  static constexpr int kFeatures = kFeatureTiles * kTileFeatures, kTokens = kTokenTiles * kTileTokens;

  __device__ GemvTile(const GemvParams& params, int64_t first_feature)
      : params_(params),
        in_(static_cast<int>(params.in)),
        g_(threadIdx.x % 32 / 4),
        col_(threadIdx.x / 32 * kStepCols + threadIdx.x % 4 * kPieceCols) {
#pragma unroll
    for (int f = 0; f < kFeatureTiles; ++f) {
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        // Features past the last are computed as the last, and not written.
        const int64_t feature = min(first_feature + f * kTileFeatures + h * 8 + g_, params.out - 1);
        weights_[f][h] = params.weight + feature * params.in;
      }
    }
  }

  // The whole sum of this warp's inputs.
  __device__ void Run() {
    constexpr int kBatchCols = kWarps * kSteps * kStepCols;
    Batch even, odd;
    Load(0, even);
    for (int first = 0; first < in_; first += 2 * kBatchCols) {
      Load(first + kBatchCols, odd);
      Multiply(first, even);
      Load(first + 2 * kBatchCols, even);
      Multiply(first + kBatchCols, odd);
    }
  }

  // partial [kTokens][kFeatures + 4] of this warp; four more keep the lanes in different banks.
  static constexpr int kPartialStride = kFeatures + 4;
  __device__ void Write(float* partial) const {
    const int t = threadIdx.x % 4;
#pragma unroll
    for (int f = 0; f < kFeatureTiles; ++f) {
#pragma unroll
      for (int n = 0; n < kTokenTiles; ++n) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          partial[(n * kTileTokens + 2 * t + i % 2) * kPartialStride + f * kTileFeatures + i / 2 * 8 + g_] =
              sums_[f][n][i];
        }
      }
    }
  }

 private:
  struct Batch {
    uint4 bits[kSteps][kFeatureTiles][2][kStepHalves];
  };

  // Of step `step` of the batch that begins at column `first`; columns past the last are zeros.
  __device__ int Col(int first, int step, int half) const {
    return first + step * kWarps * kStepCols + half * (kStepCols / kStepHalves) + col_;
  }

  __device__ void Load(int first, Batch& batch) const {
#pragma unroll
    for (int s = 0; s < kSteps; ++s) {
#pragma unroll
      for (int f = 0; f < kFeatureTiles; ++f) {
#pragma unroll
        for (int h = 0; h < 2; ++h) {
#pragma unroll
          for (int half = 0; half < kStepHalves; ++half) {
            const int col = Col(first, s, half);
            batch.bits[s][f][h][half] = col < in_ ? LoadStreamed(weights_[f][h] + col) : uint4{};
          }
        }
      }
    }
  }

  __device__ uint4 LoadX(int token, int col) const {
    if (token >= params_.rows || col >= in_) return {};
    const bf16* x = params_.x.data + token * params_.x.stride + col;
    if constexpr (kAlignedX) return *reinterpret_cast<const uint4*>(x);
    float values[kPieceCols];
    LoadPiece<false>(x, 0, kPieceCols, values);
    return PackPiece(values);
  }

  __device__ void Multiply(int first, const Batch& batch) {
#pragma unroll
    for (int s = 0; s < kSteps; ++s) {
#pragma unroll
      for (int half = 0; half < kStepHalves; ++half) {
        uint4 x[kTokenTiles];
#pragma unroll
        for (int n = 0; n < kTokenTiles; ++n) x[n] = LoadX(n * kTileTokens + g_, Col(first, s, half));
#pragma unroll
        for (int f = 0; f < kFeatureTiles; ++f) {
          const uint4 &low = batch.bits[s][f][0][half], &high = batch.bits[s][f][1][half];
#pragma unroll
          for (int n = 0; n < kTokenTiles; ++n) {
            MmaBf16(sums_[f][n], {low.x, high.x, low.y, high.y}, x[n].x, x[n].y);
            MmaBf16(sums_[f][n], {low.z, high.z, low.w, high.w}, x[n].z, x[n].w);
          }
        }
      }
    }
  }

  const GemvParams& params_;
  const int in_, g_;
  const int col_;  // of this lane in the first step of a batch
  const bf16* weights_[kFeatureTiles][2];
  float sums_[kFeatureTiles][kTokenTiles][4] = {};
};

template <int kFeatureTiles, int kTokenTiles, bool kAlignedX>
__global__ void __launch_bounds__(kThreads, 2) GemvKernel(const __grid_constant__ GemvParams params) {
  using Tile = GemvTile<kFeatureTiles, kTokenTiles, kAlignedX>;
  constexpr int kPartial = Tile::kTokens * Tile::kPartialStride;
  __shared__ float partials[kWarps * kPartial];
  const int64_t first_feature = static_cast<int64_t>(blockIdx.x) * Tile::kFeatures;
  Tile tile(params, first_feature);
  tile.Run();
  tile.Write(partials + threadIdx.x / 32 * kPartial);
  __syncthreads();
  for (int i = threadIdx.x; i < Tile::kTokens * Tile::kFeatures; i += kThreads) {
    const int token = i / Tile::kFeatures, in_tile = i % Tile::kFeatures;
    const int64_t feature = first_feature + in_tile;
    if (token >= params.rows || feature >= params.out) continue;
    float sum = 0;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) sum += partials[w * kPartial + token * Tile::kPartialStride + in_tile];
    if (params.logits != nullptr) {
      params.logits[token * params.logits_stride + feature] = sum;
    } else {
      params.y.data[token * params.y.stride + feature] = __float2bfloat16(sum);
    }
  }
}

template <int kFeatureTiles, int kTokenTiles>
cudaError_t Launch(const GemvParams& params, cudaStream_t stream) {
  auto* kernel = PiecesAligned(params.x.data, params.x.stride, params.in)
                     ? GemvKernel<kFeatureTiles, kTokenTiles, true>
                     : GemvKernel<kFeatureTiles, kTokenTiles, false>;
  kernel<<<static_cast<unsigned>(CeilDiv(params.out, kFeatureTiles * kTileFeatures)), kThreads, 0, stream>>>(params);
  return cudaGetLastError();
}

}  // namespace

cudaError_t Gemv(const GemvParams& params, cudaStream_t stream) {
  if (params.rows == 0) return cudaSuccess;
  if (params.rows > kGemvRows || !PiecesAligned(params.weight, params.in, params.in)) return cudaErrorInvalidValue;
  // Two token tiles read as many bytes of x as of a tile of 16 features: then twice the features share them.
  return params.rows <= kTileTokens ? Launch<1, 1>(params, stream) : Launch<2, 2>(params, stream);
}

}  // namespace salamander::kernels::cuda
