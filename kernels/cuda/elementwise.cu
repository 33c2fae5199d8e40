// Row-wise kernels, all bound by memory: 16-byte pieces, float32 arithmetic, bf16 in memory but for the residual
// stream, which is float32. How a row is computed never depends on how many rows there are.
#include <cmath>
#include <numbers>
#include <type_traits>

#include "kernels/cuda/device/chained.cuh"
#include "kernels/cuda/device/pieces.cuh"
#include "kernels/cuda/launch.h"

namespace salamander::kernels::cuda {
namespace {

// --- one result piece from a few pieces of the same columns

constexpr int kPieceThreads = 256;
// Pieces of one thread, for more loads under way.
constexpr int kThreadPieces = 2;

struct EmbedPiece {
  static constexpr int kCols = kFloatPieceCols;
  const int32_t* tokens;
  const bf16* table;
  int64_t cols;
  float scale;

  template <bool kAligned>
  __device__ void Compute(int64_t row, int64_t col, float (&out)[kCols]) const {
    LoadPiece<kAligned>(table + tokens[row] * cols, col, cols, out);
#pragma unroll
    for (float& value : out) value *= scale;
  }
};

struct SiluMulPiece {
  static constexpr int kCols = kPieceCols;
  ConstRows gate_up;
  int64_t cols;

  template <bool kAligned>
  __device__ void Compute(int64_t row, int64_t col, float (&out)[kPieceCols]) const {
    float gate[kPieceCols];
    const bf16* gates = gate_up.data + row * gate_up.stride;
    LoadPiece<kAligned>(gates, col, cols, gate);
    LoadPiece<kAligned>(gates + cols, col, cols, out);
#pragma unroll
    for (int i = 0; i < kPieceCols; ++i) out[i] *= gate[i] * Sigmoid(gate[i]);
  }
};

struct AddBiasPiece {
  static constexpr int kCols = kPieceCols;
  ConstRows y;
  const float* bias;
  int64_t cols;

  template <bool kAligned>
  __device__ void Compute(int64_t row, int64_t col, float (&out)[kPieceCols]) const {
    float added[kPieceCols];
    LoadPiece<kAligned>(y.data + row * y.stride, col, cols, out);
    LoadWeights<kAligned>(bias, col, cols, added);
#pragma unroll
    for (int i = 0; i < kPieceCols; ++i) out[i] += added[i];
  }
};

template <bool kAligned, class Op, class Out>
__global__ void __launch_bounds__(kPieceThreads) PieceKernel(Op op, Out out, int64_t cols, unsigned chunks) {
  AllowNext();
  WaitForPrevious();
  const int64_t row = blockIdx.x / chunks;
  const int64_t first = (blockIdx.x % chunks * kThreadPieces * kPieceThreads + threadIdx.x) * Op::kCols;
  float values[kThreadPieces][Op::kCols];
#pragma unroll
  for (int i = 0; i < kThreadPieces; ++i) {
    op.template Compute<kAligned>(row, first + i * kPieceThreads * Op::kCols, values[i]);
  }
#pragma unroll
  for (int i = 0; i < kThreadPieces; ++i) {
    StorePiece<kAligned>(out.data + row * out.stride, first + i * kPieceThreads * Op::kCols, cols, values[i]);
  }
}

template <class Op, class Out>
cudaError_t LaunchPieces(const Op& op, Out out, int64_t rows, int64_t cols, bool inputs_aligned, cudaStream_t stream) {
  if (rows == 0) return cudaSuccess;
  const int64_t chunks = CeilDiv(cols, kThreadPieces * kPieceThreads * Op::kCols);
  const bool aligned = inputs_aligned && PiecesAligned(out.data, out.stride, cols);
  auto* kernel = aligned ? PieceKernel<true, Op, Out> : PieceKernel<false, Op, Out>;
  return LaunchChained(kernel, static_cast<unsigned>(rows * chunks), kPieceThreads, stream, op, out, cols,
                       static_cast<unsigned>(chunks));
}

// --- norms of whole rows: one thread block a row, which stays in registers

constexpr int kMostRowPieces = 4;  // of one thread

// First column of piece `i` of this thread.
__device__ inline int64_t RowCol(int i) { return static_cast<int64_t>(i * blockDim.x + threadIdx.x) * kPieceCols; }

// A decode step reads all weights of the model between two uses of these: they come from far, so ahead of the rows.
template <int kPieces>
__device__ inline void PrefetchWeights(const float* weights, int64_t cols) {
#pragma unroll
  for (int i = 0; i < kPieces; ++i) {
    if (weights != nullptr && RowCol(i) < cols) asm volatile("prefetch.global.L2 [%0];\n" ::"l"(weights + RowCol(i)));
  }
}

constexpr int RowThreads(int pieces) { return pieces < kMostRowPieces ? 256 : 512; }

// As many columns a thread as in kPieces pieces of eight, in pieces of four: every access of a warp is whole sectors.
template <int kPieces, bool kAligned>
__global__ void __launch_bounds__(RowThreads(kPieces))
    AddRmsNormKernel(FloatRows hidden, ConstRows delta, float delta_scale, const float* norm, float eps, float x_scale,
                     Rows x, int64_t cols) {
  constexpr int kFloatPieces = kPieces * kPieceCols / kFloatPieceCols;
  const auto col = [](int i) { return static_cast<int64_t>(i * blockDim.x + threadIdx.x) * kFloatPieceCols; };
  AllowNext();
  PrefetchWeights<kPieces>(norm, cols);
  WaitForPrevious();
  const int64_t row = blockIdx.x;
  float* hidden_row = hidden.data + row * hidden.stride;
  float values[kFloatPieces][kFloatPieceCols];
#pragma unroll
  for (int i = 0; i < kFloatPieces; ++i) LoadPiece<kAligned>(hidden_row, col(i), cols, values[i]);
  if (delta.data != nullptr) {
    float added[kFloatPieces][kFloatPieceCols];
#pragma unroll
    for (int i = 0; i < kFloatPieces; ++i) {
      LoadPiece<kAligned>(delta.data + row * delta.stride, col(i), cols, added[i]);
    }
#pragma unroll
    for (int i = 0; i < kFloatPieces; ++i) {
#pragma unroll
      for (int c = 0; c < kFloatPieceCols; ++c) values[i][c] = fmaf(added[i][c], delta_scale, values[i][c]);
      StorePiece<kAligned>(hidden_row, col(i), cols, values[i]);
    }
  }
  if (x.data == nullptr) return;
  float squares = 0;
#pragma unroll
  for (int i = 0; i < kFloatPieces; ++i) squares += SumOfSquares(values[i]);
  const float factor = rsqrtf(BlockSum(squares) / static_cast<float>(cols) + eps) * x_scale;
#pragma unroll
  for (int i = 0; i < kFloatPieces; ++i) {
    float weights[kFloatPieceCols];
    LoadWeights<kAligned>(norm, col(i), cols, weights);
#pragma unroll
    for (int c = 0; c < kFloatPieceCols; ++c) values[i][c] *= factor * weights[c];
    StorePiece<kAligned>(x.data + row * x.stride, col(i), cols, values[i]);
  }
}

template <int kPieces, bool kAligned>
__global__ void __launch_bounds__(RowThreads(kPieces))
    NormGateKernel(Rows x, const float* norm, float eps, ConstRows gate, int64_t cols) {
  AllowNext();
  PrefetchWeights<kPieces>(norm, cols);
  WaitForPrevious();
  const int64_t row = blockIdx.x;
  bf16* x_row = x.data + row * x.stride;
  float values[kPieces][kPieceCols], gates[kPieces][kPieceCols];
#pragma unroll
  for (int i = 0; i < kPieces; ++i) {
    LoadPiece<kAligned>(x_row, RowCol(i), cols, values[i]);
    if (gate.data != nullptr) LoadPiece<kAligned>(gate.data + row * gate.stride, RowCol(i), cols, gates[i]);
  }
  if (norm != nullptr) {
    float squares = 0;
#pragma unroll
    for (int i = 0; i < kPieces; ++i) squares += SumOfSquares(values[i]);
    const float factor = rsqrtf(BlockSum(squares) / static_cast<float>(cols) + eps);
#pragma unroll
    for (int i = 0; i < kPieces; ++i) {
      float weights[kPieceCols];
      LoadWeights<kAligned>(norm, RowCol(i), cols, weights);
#pragma unroll
      for (int c = 0; c < kPieceCols; ++c) values[i][c] *= factor * weights[c];
    }
  }
#pragma unroll
  for (int i = 0; i < kPieces; ++i) {
    if (gate.data != nullptr) {
#pragma unroll
      for (int c = 0; c < kPieceCols; ++c) values[i][c] *= Sigmoid(gates[i][c]);
    }
    StorePiece<kAligned>(x_row, RowCol(i), cols, values[i]);
  }
}

// Calls launch(pieces of a thread, threads) with the first as a constant. Rows of more than 16384 columns are refused.
template <class Launch>
cudaError_t ForRowShape(int64_t cols, const Launch& launch) {
  const int64_t pieces = CeilDiv(cols, kPieceCols);
  auto threads = [&](int per_thread) { return static_cast<unsigned>(CeilDiv(CeilDiv(pieces, per_thread), 32) * 32); };
  if (pieces > kMostRowPieces * RowThreads(kMostRowPieces)) return cudaErrorInvalidValue;
  if (pieces <= RowThreads(1)) return launch(std::integral_constant<int, 1>(), threads(1));
  if (pieces <= 2 * RowThreads(2)) return launch(std::integral_constant<int, 2>(), threads(2));
  return launch(std::integral_constant<int, kMostRowPieces>(), threads(kMostRowPieces));
}

// --- heads

constexpr int kHeadThreads = 256;
constexpr int kMaxHalf = 64;

// Turns (angle / 2π) that each pair of a head makes from one token to the next.
struct RopeTurns {
  double per_token[kMaxHalf];
};

RopeTurns TurnsOf(int64_t dim, float theta) {
  RopeTurns turns = {};
  for (int64_t i = 0; i < dim / 2; ++i) {
    turns.per_token[i] =
        std::pow(static_cast<double>(theta), -2.0 * static_cast<double>(i) / static_cast<double>(dim)) /
        (2 * std::numbers::pi);
  }
  return turns;
}

// One thread block a row. A head is kDim / 8 neighbouring lanes; the pairs (i, i + kDim / 2) meet by a shuffle.
template <int kDim, bool kAligned, bool kRope>
__global__ void __launch_bounds__(kHeadThreads, 5)
    HeadNormRopeKernel(Rows x, int64_t cols, const float* norm, float eps, RopeTurns turns, const int64_t* positions,
                       int64_t first_position) {
  AllowNext();
  WaitForPrevious();
  constexpr int kLanes = kDim / kPieceCols, kHalf = kDim / 2;
  __shared__ alignas(16) float cosines[kHalf];
  __shared__ alignas(16) float sines[kHalf];
  const int64_t row = blockIdx.x;
  bf16* x_row = x.data + row * x.stride;
  if (kRope && threadIdx.x < kHalf) {
    // Whole turns go away in float64: at a position of a million float32 would leave four digits of the angle.
    const int64_t position = positions != nullptr ? positions[row] : first_position + row;
    const double turn = static_cast<double>(position) * turns.per_token[threadIdx.x];
    sincospif(2 * static_cast<float>(turn - rint(turn)), &sines[threadIdx.x], &cosines[threadIdx.x]);
  }
  const int lane = static_cast<int>(threadIdx.x) % kLanes;
  float weights[kPieceCols];
  if (norm != nullptr) LoadWeights<kAligned>(norm, lane * kPieceCols, kDim, weights);
  for (int64_t first = threadIdx.x * kPieceCols; first - threadIdx.x * kPieceCols < cols;
       first += kThreadPieces * kHeadThreads * kPieceCols) {
    float values[kThreadPieces][kPieceCols];
#pragma unroll
    for (int i = 0; i < kThreadPieces; ++i) {
      LoadPiece<kAligned>(x_row, first + i * kHeadThreads * kPieceCols, cols, values[i]);
    }
    __syncthreads();  // the angles are there
#pragma unroll
    for (int i = 0; i < kThreadPieces; ++i) {
      if (norm != nullptr) {
        const float factor = rsqrtf(LanesSum<kLanes>(SumOfSquares(values[i])) / kDim + eps);
#pragma unroll
        for (int c = 0; c < kPieceCols; ++c) values[i][c] *= factor * weights[c];
      }
      if (kRope) {
        const float sign = lane < kLanes / 2 ? -1.0f : 1.0f;
        const int angle = lane % (kLanes / 2) * kPieceCols;
#pragma unroll
        for (int c = 0; c < kPieceCols; ++c) {
          const float other = __shfl_xor_sync(kAllLanes, values[i][c], kLanes / 2);
          values[i][c] = fmaf(values[i][c], cosines[angle + c], sign * other * sines[angle + c]);
        }
      }
      StorePiece<kAligned>(x_row, first + i * kHeadThreads * kPieceCols, cols, values[i]);
    }
  }
}

}  // namespace

cudaError_t Embed(const int32_t* tokens, int64_t rows, int64_t cols, const bf16* table, float scale, FloatRows hidden,
                  cudaStream_t stream) {
  return LaunchPieces(EmbedPiece{tokens, table, cols, scale}, hidden, rows, cols, Aligned16(table), stream);
}

cudaError_t AddRmsNorm(FloatRows hidden, ConstRows delta, float delta_scale, const float* norm, float eps,
                       float x_scale, Rows x, int64_t rows, int64_t cols, cudaStream_t stream) {
  if (rows == 0) return cudaSuccess;
  const bool aligned = PiecesAligned(hidden.data, hidden.stride, cols) && Aligned16(norm) &&
                       (delta.data == nullptr || PiecesAligned(delta.data, delta.stride, cols)) &&
                       (x.data == nullptr || PiecesAligned(x.data, x.stride, cols));
  return ForRowShape(cols, [&](auto pieces, unsigned threads) {
    auto* kernel = aligned ? AddRmsNormKernel<pieces.value, true> : AddRmsNormKernel<pieces.value, false>;
    return LaunchChained(kernel, static_cast<unsigned>(rows), threads, stream, hidden, delta, delta_scale, norm, eps,
                         x_scale, x, cols);
  });
}

cudaError_t HeadNormRope(Rows x, int64_t rows, int64_t heads, int64_t dim, const float* norm, float eps, float theta,
                         const int64_t* positions, int64_t first_position, cudaStream_t stream) {
  if (rows == 0 || (norm == nullptr && theta == 0)) return cudaSuccess;
  const int64_t cols = heads * dim;
  const bool aligned = PiecesAligned(x.data, x.stride, cols) && Aligned16(norm);
  const RopeTurns turns = theta != 0 && dim <= 2 * kMaxHalf ? TurnsOf(dim, theta) : RopeTurns{};
  auto launch = [&](auto constant) {
    constexpr int kDim = decltype(constant)::value;
    auto* kernel = theta != 0
                       ? (aligned ? HeadNormRopeKernel<kDim, true, true> : HeadNormRopeKernel<kDim, false, true>)
                       : (aligned ? HeadNormRopeKernel<kDim, true, false> : HeadNormRopeKernel<kDim, false, false>);
    return LaunchChained(kernel, static_cast<unsigned>(rows), kHeadThreads, stream, x, cols, norm, eps, turns,
                         positions, first_position);
  };
  switch (dim) {
    case 32:
      return launch(std::integral_constant<int, 32>());
    case 64:
      return launch(std::integral_constant<int, 64>());
    case 128:
      return launch(std::integral_constant<int, 128>());
    default:
      return cudaErrorInvalidValue;
  }
}

cudaError_t SiluMul(ConstRows gate_up, Rows out, int64_t rows, int64_t cols, cudaStream_t stream) {
  return LaunchPieces(SiluMulPiece{gate_up, cols}, out, rows, cols, PiecesAligned(gate_up.data, gate_up.stride, cols),
                      stream);
}

cudaError_t NormGate(Rows x, const float* norm, float eps, ConstRows gate, int64_t rows, int64_t cols,
                     cudaStream_t stream) {
  if (rows == 0) return cudaSuccess;
  const bool aligned = PiecesAligned(x.data, x.stride, cols) && Aligned16(norm) &&
                       (gate.data == nullptr || PiecesAligned(gate.data, gate.stride, cols));
  return ForRowShape(cols, [&](auto pieces, unsigned threads) {
    auto* kernel = aligned ? NormGateKernel<pieces.value, true> : NormGateKernel<pieces.value, false>;
    return LaunchChained(kernel, static_cast<unsigned>(rows), threads, stream, x, norm, eps, gate, cols);
  });
}

cudaError_t AddBias(Rows y, const float* bias, int64_t rows, int64_t cols, cudaStream_t stream) {
  return LaunchPieces(AddBiasPiece{{y.data, y.stride}, bias, cols}, y, rows, cols, Aligned16(bias), stream);
}

}  // namespace salamander::kernels::cuda
