// What the kernels of lightning attention share (Lightning Attention-2, arXiv 2401.04658, section 3.2).
//
// Inside a chunk of n rows, with λ the decay of a token and S the state before it:
//   out_i = scale · ( λ^(i+1) q_i S  +  Σ_{j ≤ i} λ^(i-j) (q_i · k_j) v_j )
//   S     = λ^n S + Σ_j λ^(n-1-j) k_j v_jᵀ
// Every power is at most 1 and taken in float32; those that underflow are zeros. Operands of the tensor cores are bf16,
// sums and states float32.
//
// A thread block goes through its rows chunk by chunk. Heads alone do not fill a GPU, so long sequences are cut into
// spans, one thread block each:
//   1. lightning_state.cu, parts: what the rows of each span but the last add to the state, four parts a span
//   2. lightning_state.cu, scan: from them the state before each span
//   3. lightning_chunk.cu, lightning_chunk_sm90a.cu: outputs of each span, and the state after the last
// Passes 1 and 2 are left out when sequences and heads are enough.
#ifndef SALAMANDER_KERNELS_CUDA_LIGHTNING_CUH_
#define SALAMANDER_KERNELS_CUDA_LIGHTNING_CUH_

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "kernels/cuda/device/chained.cuh"
#include "kernels/cuda/device/mma.cuh"
#include "kernels/cuda/launch.h"

namespace salamander::kernels::cuda {

struct LightningArgs {
  ConstRows q, k, v;
  Rows out;
  const float* slopes = nullptr;
  const LightningSequence* sequences = nullptr;
  // [count, heads, slots of a sequence, dim, dim] float32. Slot kSpanParts·s + p: first part p of span s, then (p = 0)
  // the state before span s.
  float* workspace = nullptr;
  int heads = 0;
  int group = 0;  // heads of one key/value head
  int spans = 0;  // at most, of one sequence
  float scale = 1;
};

// Spans have whole chunks of all parts.
inline constexpr int kSpanParts = 4;
inline constexpr int kPartChunk = 64;

inline int LightningSpans(const LightningParams& params) {
  const int64_t longest = (params.max_rows + kSpanParts * kPartChunk - 1) / (kSpanParts * kPartChunk);
  return static_cast<int>(std::clamp<int64_t>(params.multiprocessors / (params.heads * params.count), 1, longest));
}
__host__ __device__ inline int LightningSlots(int spans) { return (spans - 1) * kSpanParts + 1; }

cudaError_t LightningStates(const LightningArgs& args, int dim, int count, cudaStream_t stream);
cudaError_t LightningChunks(const LightningArgs& args, int dim, int count, Arch arch, cudaStream_t stream);
cudaError_t LightningChunksSm90a(const LightningArgs& args, int count, cudaStream_t stream);  // heads of 128
cudaError_t LightningStep(const LightningArgs& args, int dim, int count, cudaStream_t stream);

#ifdef __CUDACC__

// How one sequence is cut.
struct SpanCut {
  // Of the rows and the most spans a sequence has. No rows: no spans.
  __device__ SpanCut(int64_t sequence_rows, int most) {
    constexpr int64_t kUnit = kSpanParts * kPartChunk;
    rows = (sequence_rows + most * kUnit - 1) / (most * kUnit) * kUnit;
    spans = rows == 0 ? 0 : static_cast<int>((sequence_rows + rows - 1) / rows);
  }
  __device__ int64_t part_rows() const { return rows / kSpanParts; }

  int64_t rows = 0;  // of each span but the last, which may have fewer
  int spans = 0;
};

// -log2(λ) of a head.
__device__ inline float DecayRate(const LightningArgs& args, int head) {
  constexpr float kLog2E = 1.44269504f;
  return args.slopes[head] * kLog2E;
}
// λ^tokens.
__device__ inline float Decay(float rate, int tokens) { return FastExp2(-rate * static_cast<float>(tokens)); }
// λ^tokens, and 0 where tokens < 0.
__device__ inline float CausalDecay(float rate, int tokens) { return tokens < 0 ? 0.0f : Decay(rate, tokens); }

// The first row of a part that its span's last row still sees. Older ones weigh less than 2^-64 of the last: too little
// for float32 sums. The part's end if there is none.
__device__ inline int64_t PartBegin(const SpanCut& cut, float rate, int span, int part) {
  const float horizon = fminf(64 / rate, 1e9f);
  const int64_t begin = span * cut.rows + part * cut.part_rows(), last = (span + 1) * cut.rows - 1;
  const int64_t unseen = last - begin - static_cast<int64_t>(horizon);
  if (unseen <= 0) return begin;
  return unseen >= cut.part_rows() ? begin + cut.part_rows() : begin + unseen / kPartChunk * kPartChunk;
}

__device__ inline float* Slot(const LightningArgs& args, int dim, int sequence, int head, int slot) {
  const int64_t index = static_cast<int64_t>(sequence * args.heads + head) * LightningSlots(args.spans) + slot;
  return args.workspace + index * dim * dim;
}

// One span of one head.
struct Span {
  const bf16 *q, *k, *v;
  bf16* out;
  int64_t q_stride, k_stride, v_stride, out_stride;
  int64_t rows;
  float rate, scale;
  const float* state_before;
  float* state_after;  // null: not wanted
};

// Span blockIdx.x of head blockIdx.y of sequence blockIdx.z; without rows if there is no such span.
template <int kDim>
__device__ Span MakeSpan(const LightningArgs& args) {
  const int index = blockIdx.x, head = blockIdx.y;
  const LightningSequence sequence = args.sequences[blockIdx.z];
  const SpanCut cut(sequence.rows, args.spans);
  const int64_t row = sequence.row + index * cut.rows, col = static_cast<int64_t>(head) * kDim;
  const int64_t kv_col = static_cast<int64_t>(head / args.group) * kDim;
  float* state = sequence.state + col * kDim;
  Span span;
  span.q = args.q.data + row * args.q.stride + col;
  span.k = args.k.data + row * args.k.stride + kv_col;
  span.v = args.v.data + row * args.v.stride + kv_col;
  span.out = args.out.data + row * args.out.stride + col;
  span.q_stride = args.q.stride;
  span.k_stride = args.k.stride;
  span.v_stride = args.v.stride;
  span.out_stride = args.out.stride;
  span.rows = index < cut.spans ? min(cut.rows, sequence.rows - index * cut.rows) : 0;
  span.rate = DecayRate(args, head);
  span.scale = args.scale;
  span.state_before = cut.spans == 1 ? state : Slot(args, kDim, blockIdx.z, head, kSpanParts * index);
  span.state_after = index + 1 == cut.spans ? state : nullptr;
  return span;
}

// Tiles of bf16 in shared memory: rows of kDim, in panels of at most 64 columns, a panel's rows swizzled.
template <int kDim, int kRows>
__device__ int TileOffset(int row, int piece) {
  if constexpr (kDim <= 64) {
    return Swizzle<2 * kDim>(row, piece);
  } else {
    return piece / 8 * (kRows * 128) + Swizzle<128>(row, piece % 8);
  }
}

// Starts copies of rows [row, row + kRows) of one head into a tile, zeros from row `end` on; a share of it for each of
// kThreads threads.
template <int kDim, int kRows, int kThreads>
__device__ void CopyTile(int thread, uint32_t tile, const bf16* head, int64_t stride, int64_t row, int64_t end) {
  constexpr int kPieces = kDim / 8;
  static_assert(kRows * kPieces % kThreads == 0);
#pragma unroll
  for (int i = 0; i < kRows * kPieces; i += kThreads) {
    const int r = (i + thread) / kPieces, piece = (i + thread) % kPieces;
    const bool valid = row + r < end;
    CopyAsync16(tile + TileOffset<kDim, kRows>(r, piece), head + (valid ? row + r : row) * stride + piece * 8,
                valid ? 16 : 0);
  }
}

// Fragment A of λ^(last-j) k_jᵀ: dimensions [row, row + 16) of keys [j, j + 16) of a tile.
template <int kDim, int kRows>
__device__ void LoadDecayedKeys(uint32_t (&a)[4], uint32_t keys, float rate, int last, int j, int row) {
  const int lane = threadIdx.x % 32;
  LoadMatrix4Transposed(a, keys + TileOffset<kDim, kRows>(j + lane / 16 * 8 + lane % 8, row / 8 + lane / 8 % 2));
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int distance = last - (j + lane % 4 * 2 + i / 2 * 8);
    const float2 pair = __bfloat1622float2(reinterpret_cast<const __nv_bfloat162&>(a[i]));
    a[i] = PackBf16(pair.x * CausalDecay(rate, distance), pair.y * CausalDecay(rate, distance - 1));
  }
}

// The tile of a state that one warp keeps: rows (of keys) [row, row + 16·kTiles), columns (of values)
// [col, col + 16·kPairs), as fragments C.
template <int kDim, int kTiles, int kPairs>
struct StateTile {
  float sums[kTiles][2 * kPairs][4];
  int row, col;

  __device__ void Clear() {
    ForEach([&](int, int, float& x, float& y) { x = y = 0; });
  }
  __device__ void Load(const float* state) {
    ForEach([&](int r, int c, float& x, float& y) {
      const float2 pair = *reinterpret_cast<const float2*>(state + r * kDim + c);
      x = pair.x;
      y = pair.y;
    });
  }
  __device__ void Store(float* state) {
    ForEach([&](int r, int c, float& x, float& y) {
      *reinterpret_cast<float2*>(state + r * kDim + c) = make_float2(x, y);
    });
  }
  __device__ void Scale(float factor) {
    ForEach([&](int, int, float& x, float& y) {
      x *= factor;
      y *= factor;
    });
  }
  // As bf16 into a tile of kDim rows in shared memory.
  __device__ void StoreBf16(uint8_t* shared) {
    ForEach([&](int r, int c, float& x, float& y) {
      *reinterpret_cast<uint32_t*>(shared + TileOffset<kDim, kDim>(r, c / 8) + c % 8 * 2) = PackBf16(x, y);
    });
  }

  // Adds λ^(last-j) k_j v_jᵀ for rows j ≤ last of a chunk; `keys` and `values` are its tiles in shared memory, whose
  // rows after `last` are zeros.
  template <int kChunk>
  __device__ void AddRows(uint32_t keys, uint32_t values, float rate, int last) {
    const int lane = threadIdx.x % 32;
    for (int j = 0; j < kChunk && j <= last; j += 16) {
      uint32_t a[kTiles][4];
#pragma unroll
      for (int t = 0; t < kTiles; ++t) LoadDecayedKeys<kDim, kChunk>(a[t], keys, rate, last, j, row + 16 * t);
#pragma unroll
      for (int n = 0; n < kPairs; ++n) {
        uint32_t b[4];
        LoadMatrix4Transposed(b, values + TileOffset<kDim, kChunk>(j + lane % 16, col / 8 + 2 * n + lane / 16));
#pragma unroll
        for (int t = 0; t < kTiles; ++t) {
          MmaBf16(sums[t][2 * n], a[t], b[0], b[1]);
          MmaBf16(sums[t][2 * n + 1], a[t], b[2], b[3]);
        }
      }
    }
  }

 private:
  // f(row, col, sums at (row, col) and (row, col + 1)).
  template <typename F>
  __device__ void ForEach(F f) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int t = 0; t < kTiles; ++t) {
#pragma unroll
      for (int n = 0; n < 2 * kPairs; ++n) {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          f(row + 16 * t + lane / 4 + 8 * i, col + 8 * n + lane % 4 * 2, sums[t][n][2 * i], sums[t][n][2 * i + 1]);
        }
      }
    }
  }
};

#endif  // __CUDACC__

}  // namespace salamander::kernels::cuda

#endif  // SALAMANDER_KERNELS_CUDA_LIGHTNING_CUH_
