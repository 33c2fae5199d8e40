// Keys and values into pages, and the tiers of window means over the keys.
#include <type_traits>

#include "kernels/cuda/device/chained.cuh"
#include "kernels/cuda/device/pieces.cuh"
#include "kernels/cuda/launch.h"

namespace salamander::kernels::cuda {
namespace {

constexpr int kAppendThreads = 256;

// A thread copies pieces of rows. Rows past the last one, up to the end of the block, are zeros where the first token
// of that block is among the rows: a block is whole from its first token on, and never holds what the page held before.
template <bool kAligned>
__global__ void __launch_bounds__(kAppendThreads)
    AppendKvKernel(KvLayout kv, const SparseSequence* sequences, ConstRows k, ConstRows v) {
  AllowNext();
  WaitForPrevious();
  const SparseSequence seq = sequences[blockIdx.y];
  if (seq.rows == 0) return;
  const int64_t end = seq.position + seq.rows, last_block = (end - 1) / kBlockTokens;
  const bool begins_block = last_block * kBlockTokens >= seq.position;
  const int64_t rows = begins_block ? (last_block + 1) * kBlockTokens - seq.position : seq.rows;
  const int64_t cols = kv.kv_heads * kv.head_dim;
  const unsigned row_pieces = static_cast<unsigned>(cols / kPieceCols);
  const int64_t pieces = rows * 2 * row_pieces;
  for (int64_t piece = static_cast<int64_t>(blockIdx.x) * kAppendThreads + threadIdx.x; piece < pieces;
       piece += static_cast<int64_t>(gridDim.x) * kAppendThreads) {
    // [row][keys, values][head][piece]; max_rows · 2 · row_pieces fits 32 bits by far.
    const unsigned row = static_cast<unsigned>(piece) / (2 * row_pieces);
    const unsigned in_row = static_cast<unsigned>(piece) % (2 * row_pieces);
    const bool is_value = in_row >= row_pieces;
    const unsigned col = (is_value ? in_row - row_pieces : in_row) * kPieceCols;
    const unsigned head_dim = static_cast<unsigned>(kv.head_dim);
    uint4 bits = {};
    if (row < seq.rows) {
      const ConstRows& from = is_value ? v : k;
      const bf16* data = from.data + (seq.row + row) * from.stride + col;
      if constexpr (kAligned) {
        bits = *reinterpret_cast<const uint4*>(data);
      } else {
        float values[kPieceCols];
        LoadPiece<false>(data, 0, kPieceCols, values);
        bits = PackPiece(values);
      }
    }
    const int64_t token = seq.position + row, block = token / kBlockTokens;
    const int64_t head = col / head_dim, in_page = block % kPageBlocks;
    std::byte* to = seq.pages[block / kPageBlocks] + (is_value ? kv.values(in_page, head) : kv.keys(in_page, head)) +
                    token % kBlockTokens * kv.row_bytes() + col % head_dim * sizeof(bf16);
    *reinterpret_cast<uint4*>(to) = bits;
  }
}

// Keys are summed sixteen at a time; a K1 window is two such sums, a K2 window eight.
constexpr int kSumTokens = kK1Stride;
constexpr int kSums = kK2Window / kSumTokens;
constexpr int kK1PerK2 = kK2Stride / kK1Stride;

// Groups of windows, of which group w is K2[w] and the K1 windows 4w … 4w+3, that can end in any `rows` tokens.
constexpr int64_t PoolGroups(int64_t rows) { return (rows + kK2Stride / 2 - 1) / kK2Stride + 2; }

// One thread block of kDim threads a group of windows, head and sequence.
template <int kDim>
__global__ void __launch_bounds__(kDim) PoolTiersKernel(KvLayout kv, const SparseSequence* sequences) {
  __shared__ alignas(16) float sums[kSums][kDim];
  AllowNext();
  WaitForPrevious();
  const SparseSequence seq = sequences[blockIdx.z];
  const int64_t begin = seq.position, end = seq.position + seq.rows, head = blockIdx.y;
  // The first group whose K2 window ends after `begin`.
  const int64_t group = max(begin / kK2Stride - 1, int64_t{0}) + blockIdx.x, first_token = group * kK2Stride;
  auto ends_here = [&](int64_t token) { return begin < token && token <= end; };
  auto k1_end = [&](int i) { return first_token + i * kK1Stride + kK1Window; };
  const int64_t k2_end = first_token + kK2Window;
  bool any = ends_here(k2_end);
  for (int i = 0; i < kK1PerK2; ++i) any |= ends_here(k1_end(i));
  if (!any) return;

  constexpr int kLanes = kDim / kPieceCols;
  const int sum = static_cast<int>(threadIdx.x) / kLanes, col = static_cast<int>(threadIdx.x) % kLanes * kPieceCols;
  // Later tokens may not exist.
  if (first_token + (sum + 1) * kSumTokens <= end) {
    const int64_t block = group + sum / kK1PerK2;
    const std::byte* tile = seq.pages[block / kPageBlocks] + kv.keys(block % kPageBlocks, head);
    const auto* keys = reinterpret_cast<const bf16*>(tile) + sum % kK1PerK2 * kSumTokens * kDim + col;
    uint4 pieces[kSumTokens];
#pragma unroll
    for (int t = 0; t < kSumTokens; ++t) pieces[t] = *reinterpret_cast<const uint4*>(keys + t * kDim);
    float total[kPieceCols] = {};
#pragma unroll
    for (int t = 0; t < kSumTokens; ++t) {
      float key[kPieceCols];
      UnpackPiece(pieces[t], key);
#pragma unroll
      for (int c = 0; c < kPieceCols; ++c) total[c] += key[c];
    }
#pragma unroll
    for (int c = 0; c < kPieceCols; ++c) sums[sum][col + c] = total[c];
  }
  __syncthreads();

  const int out_col = static_cast<int>(threadIdx.x);
  std::byte* page = seq.pages[group / kPageK2];
#pragma unroll
  for (int i = 0; i < kK1PerK2; ++i) {
    if (!ends_here(k1_end(i))) continue;
    auto* out = reinterpret_cast<bf16*>(page + kv.k1(head, (group * kK1PerK2 + i) % kPageK1));
    out[out_col] = __float2bfloat16((sums[i][out_col] + sums[i + 1][out_col]) * (1.0f / kK1Window));
  }
  if (ends_here(k2_end)) {
    float total = 0;
#pragma unroll
    for (int i = 0; i < kSums; ++i) total += sums[i][out_col];
    auto* out = reinterpret_cast<bf16*>(page + kv.k2(head, group % kPageK2));
    out[out_col] = __float2bfloat16(total * (1.0f / kK2Window));
  }
}

}  // namespace

cudaError_t AppendKv(const SparseParams& params, ConstRows k, ConstRows v, cudaStream_t stream) {
  if (params.count == 0 || params.max_rows == 0) return cudaSuccess;
  const int64_t cols = params.kv.kv_heads * params.kv.head_dim;
  const bool aligned = PiecesAligned(k.data, k.stride, cols) && PiecesAligned(v.data, v.stride, cols);
  const dim3 grid(static_cast<unsigned>(CeilDiv(params.max_rows * 2 * (cols / kPieceCols), kAppendThreads)),
                  static_cast<unsigned>(params.count));
  auto* kernel = aligned ? AppendKvKernel<true> : AppendKvKernel<false>;
  return LaunchChained(kernel, grid, kAppendThreads, stream, params.kv, params.sequences, k, v);
}

cudaError_t PoolTiers(const SparseParams& params, cudaStream_t stream) {
  if (params.count == 0 || params.max_rows == 0) return cudaSuccess;
  const dim3 grid(static_cast<unsigned>(PoolGroups(params.max_rows)), static_cast<unsigned>(params.kv.kv_heads),
                  static_cast<unsigned>(params.count));
  auto launch = [&](auto constant) {
    constexpr int kDim = decltype(constant)::value;
    return LaunchChained(PoolTiersKernel<kDim>, grid, kDim, stream, params.kv, params.sequences);
  };
  switch (params.kv.head_dim) {
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

}  // namespace salamander::kernels::cuda
