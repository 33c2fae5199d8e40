// Products of a few rows with a large weight, bound by reading the weight once.
//
// A thread block takes 16 or 32 output features over all inputs; its warps share the inputs out in steps of 64 columns.
// The products are tensor core products with the tokens as the rows of A and the features as the columns of B, so that
// sixteen tokens cost no more than one, and the weight goes from memory to registers to the product: the sum over
// inputs may be taken in any order, so lane (g, t) of a fragment (mma.cuh) takes columns 8t … 8t+7 of feature g, and of
// tokens g and g + 8, in one 16-byte load each; the four pairs of columns stand for the pairs 2t and 2t+8 of two
// products.
//
// How inputs are shared out depends on their number alone: what a row yields never depends on the rows beside it.
#include "kernels/cuda/device/chained.cuh"
#include "kernels/cuda/device/mma.cuh"
#include "kernels/cuda/device/pieces.cuh"
#include "kernels/cuda/launch.h"

namespace salamander::kernels::cuda {
namespace {

constexpr int kWarps = 8, kThreads = kWarps * 32;
// Columns of a step, and of one load of a fragment's rows.
constexpr int kStepCols = 64, kLoadCols = 32;
constexpr int kStepLoads = kStepCols / kLoadCols;
constexpr int kTileFeatures = 8;  // columns of B
constexpr int kBatchLoads = 8;

// Read once: no place in the L1 cache, where x stays. (Not a load of constants, .nc: those sink below the wait for the
// previous kernel.)
__device__ inline uint4 LoadStreamed(const bf16* data) {
  uint4 bits;
  asm volatile("ld.global.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];\n"
               : "=r"(bits.x), "=r"(bits.y), "=r"(bits.z), "=r"(bits.w)
               : "l"(data));
  return bits;
}

// The share of one warp in kTiles · 8 features. Loads of the weight come in batches of eight a lane, kBatches of them
// under way. kTokens is 8 or 16.
template <int kTokens, int kTiles, int kBatches, bool kAlignedX>
class GemvWarp {
 public:
  static constexpr int kFeatures = kTiles * kTileFeatures;

  __device__ GemvWarp(const GemvParams& params, int64_t first_feature)
      : params_(params),
        in_(static_cast<int>(params.in)),
        g_(threadIdx.x % 32 / 4),
        col_(threadIdx.x / 32 * kStepCols + threadIdx.x % 4 * kPieceCols) {
#pragma unroll
    for (int f = 0; f < kTiles; ++f) {
      // Features past the last are computed as the last, and not written.
      weights_[f] = params.weight + min(first_feature + f * kTileFeatures + g_, params.out - 1) * params.in;
    }
  }

  __device__ void Run() {
    Batch ring[kBatches];
#pragma unroll
    for (int b = 0; b < kBatches; ++b) Load(b * kBatchCols, ring[b]);
    WaitForPrevious();
    for (int first = 0; first < in_; first += kBatches * kBatchCols) {
#pragma unroll
      for (int b = 0; b < kBatches; ++b) {
        Multiply(first + b * kBatchCols, ring[b]);
        Load(first + (kBatches + b) * kBatchCols, ring[b]);
        // Keeps the compiler from waiting for the next batch before these loads.
        __syncwarp();
      }
    }
  }

  // To partial [kTokens][kPartialStride]; eight more than features keep the lanes in different banks.
  static constexpr int kPartialStride = kFeatures + 8;
  __device__ void Write(float* partial) const {
    const int t = threadIdx.x % 4;
#pragma unroll
    for (int f = 0; f < kTiles; ++f) {
#pragma unroll
      for (int h = 0; h < kTokens / 8; ++h) {
        float* to = partial + (h * 8 + g_) * kPartialStride + f * kTileFeatures + 2 * t;
        *reinterpret_cast<float2*>(to) = {sums_[f][2 * h], sums_[f][2 * h + 1]};
      }
    }
  }

 private:
  static constexpr int kSteps = kBatchLoads / (kTiles * kStepLoads);
  static constexpr int kBatchCols = kWarps * kSteps * kStepCols;
  struct Batch {
    uint4 bits[kSteps][kStepLoads][kTiles];
  };

  // Of this lane in a load of a batch that begins at `first`; columns past the last are zeros.
  __device__ int Col(int first, int step, int load) const {
    return first + step * kWarps * kStepCols + load * kLoadCols + col_;
  }

  __device__ void Load(int first, Batch& batch) const {
#pragma unroll
    for (int s = 0; s < kSteps; ++s) {
#pragma unroll
      for (int l = 0; l < kStepLoads; ++l) {
        const int col = Col(first, s, l);
#pragma unroll
        for (int f = 0; f < kTiles; ++f) {
          batch.bits[s][l][f] = col < in_ ? LoadStreamed(weights_[f] + col) : uint4{};
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
      for (int l = 0; l < kStepLoads; ++l) {
        const int col = Col(first, s, l);
        const uint4 low = LoadX(g_, col), high = kTokens > 8 ? LoadX(g_ + 8, col) : uint4{};
#pragma unroll
        for (int f = 0; f < kTiles; ++f) {
          const uint4& weight = batch.bits[s][l][f];
          MmaBf16(sums_[f], {low.x, high.x, low.y, high.y}, weight.x, weight.y);
          MmaBf16(sums_[f], {low.z, high.z, low.w, high.w}, weight.z, weight.w);
        }
      }
    }
  }

  const GemvParams& params_;
  const int in_, g_;
  const int col_;  // of this lane in the first load of a batch
  const bf16* weights_[kTiles];
  float sums_[kTiles][4] = {};
};

template <int kTokens, int kTiles, int kBatches, bool kAlignedX>
__global__ void __launch_bounds__(kThreads, kBatches > 2 ? 1 : 2)
    GemvKernel(const __grid_constant__ GemvParams params) {
  using Warp = GemvWarp<kTokens, kTiles, kBatches, kAlignedX>;
  constexpr int kPartial = kTokens * Warp::kPartialStride;
  __shared__ alignas(16) float partials[kWarps * kPartial];
  AllowNext();
  const int64_t first_feature = static_cast<int64_t>(blockIdx.x) * Warp::kFeatures;
  Warp warp(params, first_feature);
  warp.Run();
  warp.Write(partials + threadIdx.x / 32 * kPartial);
  __syncthreads();
  for (int i = threadIdx.x; i < kTokens * Warp::kFeatures; i += kThreads) {
    const int token = i / Warp::kFeatures, in_block = i % Warp::kFeatures;
    const int64_t feature = first_feature + in_block;
    if (token >= params.rows || feature >= params.out) continue;
    float sum = 0;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) sum += partials[w * kPartial + token * Warp::kPartialStride + in_block];
    if (params.logits != nullptr) {
      params.logits[token * params.logits_stride + feature] = sum;
    } else {
      params.y.data[token * params.y.stride + feature] = __float2bfloat16(sum);
    }
  }
}

template <int kTokens, int kTiles, int kBatches>
cudaError_t Launch(const GemvParams& params, cudaStream_t stream) {
  auto* kernel = PiecesAligned(params.x.data, params.x.stride, params.in)
                     ? GemvKernel<kTokens, kTiles, kBatches, true>
                     : GemvKernel<kTokens, kTiles, kBatches, false>;
  const dim3 grid(static_cast<unsigned>(CeilDiv(params.out, kTiles * kTileFeatures)));
  return LaunchChained(kernel, grid, kThreads, stream, params);
}

// Up to so many features, thread blocks of 32 are at most about one a multiprocessor, which then has all registers.
constexpr int64_t kFewFeatures = 32 * 144;

}  // namespace

cudaError_t Gemv(const GemvParams& params, cudaStream_t stream) {
  if (params.rows == 0) return cudaSuccess;
  if (params.rows > kGemvRows || !PiecesAligned(params.weight, params.in, params.in)) return cudaErrorInvalidValue;
  if (params.rows <= 8) return Launch<8, 2, 2>(params, stream);
  // Sixteen tokens of x are as many bytes as sixteen features: then twice the features share them.
  return params.out <= kFewFeatures ? Launch<16, 4, 4>(params, stream) : Launch<16, 4, 2>(params, stream);
}

}  // namespace salamander::kernels::cuda
