// Stage 1 of InfLLM-V2 (arXiv 2509.24663) for tiles of tokens: what both tile kernels do with their products.
//
// A team of four warps scores 64 windows at a time for 8 tokens of one key/value head. Windows are the rows of the
// product and (token, query head) its columns, in an order that suits the accumulators of mma and wgmma: there a thread
// holds columns 2t and 2t+1 of every 8 (t = lane % 4), so column 8n + 2t + e is head 2n + e of token t of four. A
// thread has all heads of its tokens, and sums over heads never leave its registers.
//
// Tokens of a team lie in one aligned group of 8 positions, so they share a block and with it the choice's plan.
#ifndef SALAMANDER_KERNELS_CUDA_SELECT_TILE_CUH_
#define SALAMANDER_KERNELS_CUDA_SELECT_TILE_CUH_

#include <cstdint>

#include "kernels/cuda/device/barrier.cuh"
#include "kernels/cuda/device/mma.cuh"
#include "kernels/cuda/select.h"
#include "kernels/cuda/select_plan.cuh"

namespace salamander::kernels::cuda {

inline constexpr int kTeamTokens = 8;
inline constexpr int kTeamThreads = 128;
inline constexpr int kTileWindows = 64;

// Scores times this are exponents of 2: log2(e) / sqrt(dim).
template <int kDim>
__host__ __device__ constexpr float ExponentScale() {
  static_assert(kDim == 32 || kDim == 64 || kDim == 128);
  constexpr double kLog2E = 1.4426950408889634;
  return static_cast<float>(kDim == 32   ? kLog2E * 0.17677669529663687
                            : kDim == 64 ? kLog2E * 0.125
                                         : kLog2E * 0.08838834764831843);
}

// A tile of kRows rows of kDim bf16 in shared memory: one or two slabs of rows of at most 128 bytes, swizzled, as
// wgmma reads it and ldmatrix without conflicts.
template <int kDim, int kRows>
struct SharedTile {
  static constexpr int kRowBytes = kDim >= 64 ? 128 : 2 * kDim;
  static constexpr int kPieces = kDim / 8;  // of 16 bytes in a row
  static constexpr int kSlabPieces = kRowBytes / 16;
  static constexpr int kSlabBytes = kRows * kRowBytes;
  static constexpr int kBytes = kRows * kDim * 2;
  __device__ static int Offset(int row, int piece) {
    return piece / kSlabPieces * kSlabBytes + Swizzle<kRowBytes>(row, piece % kSlabPieces);
  }
};

// Starts copies of a team's queries, from the token at position `first` on; zero for tokens that the sequence does not
// have here and for heads from `group` on.
template <int kDim, int kHeads>
__device__ inline void LoadQueries(const SparseSequence& seq, ConstRows q, int64_t first, int head, int group,
                                   unsigned thread, unsigned threads, uint32_t shared) {
  using Tile = SharedTile<kDim, kTeamTokens * kHeads>;
  for (unsigned i = thread; i < kTeamTokens * kHeads * Tile::kPieces; i += threads) {
    const int column = i / Tile::kPieces, piece = i % Tile::kPieces;
    const int token = column / (4 * kHeads) * 4 + column % 8 / 2, h = column % (4 * kHeads) / 8 * 2 + column % 2;
    const int64_t row = first + token - seq.position;
    const bool exists = row >= 0 && row < seq.rows && h < group;
    const bf16* from = exists ? q.data + (seq.row + row) * q.stride + (head * group + h) * kDim + piece * 8 : q.data;
    CopyAsync16(shared + Tile::Offset(column, piece), from, exists ? 16 : 0);
  }
}

// Starts copies of 64 rows of a tier: rows [first_row, first_row + kPageRows) of each of 64 / kPageRows pages from
// `page` on, zero from `page_end` on. `tier` is the head's tier in a page.
template <int kDim, int kPageRows>
__device__ inline void LoadTier(std::byte* const* pages, int64_t tier, int page, int page_end, int first_row,
                                unsigned thread, unsigned threads, uint32_t shared) {
  using Tile = SharedTile<kDim, kTileWindows>;
  constexpr int kPages = kTileWindows / kPageRows;
  const std::byte* from[kPages];
#pragma unroll
  for (int part = 0; part < kPages; ++part) {
    from[part] = pages[page + part < page_end ? page + part : 0] + tier + first_row * kDim * 2;
  }
#pragma unroll
  for (int part = 0; part < kPages; ++part) {
    const int bytes = page + part < page_end ? 16 : 0;
#pragma unroll
    for (unsigned i = thread; i < kPageRows * Tile::kPieces; i += threads) {
      const int row = part * kPageRows + i / Tile::kPieces;
      CopyAsync16(shared + Tile::Offset(row, i % Tile::kPieces), from[part] + i * 16, bytes);
    }
  }
}

// Hides windows first + lane / 4 (+ 8) from a token that sees `visible`.
template <int kHeads>
__device__ inline void Hide(int first, int visible, float (*scores)[4]) {
  const int window = first + threadIdx.x % 32 / 4;
#pragma unroll
  for (int n = 0; n < kHeads / 2; ++n) {
#pragma unroll
    for (int c = 0; c < 4; ++c) {
      if (window + c / 2 * 8 >= visible) scores[n][c] = __int_as_float(0xff800000);
    }
  }
}

// Σ of 2^(scale · score) over some windows, as sum · 2^reference.
struct alignas(8) LogSum {
  float reference = -1e30f;  // below every score, and finite: differences stay numbers
  float sum = 0;

  __device__ void Merge(const LogSum& other) {
    const float most = fmaxf(reference, other.reference);
    sum = sum * FastExp2(reference - most) + other.sum * FastExp2(other.reference - most);
    reference = most;
  }
  // All of them, with no chain of dependent steps.
  template <int kParts>
  __device__ static LogSum Of(const LogSum (&parts)[kParts]) {
    LogSum all;
#pragma unroll
    for (const LogSum& part : parts) all.reference = fmaxf(all.reference, part.reference);
#pragma unroll
    for (const LogSum& part : parts) all.sum += part.sum * FastExp2(part.reference - all.reference);
    return all;
  }
  // Its base-2 logarithm. Heads that are not there get one so high that their scores become 0.
  __device__ float Log2(bool exists) const { return exists ? reference + __log2f(sum) : __int_as_float(0x7f800000); }
};

// Those of a thread's columns of one token, over the windows that come its way.
template <int kHeads>
struct LogSums {
  LogSum heads[kHeads];

  // Adds two windows, [n][e] and [n][2 + e] for head 2n + e; -inf where hidden. References follow the maximum only when
  // a sum is about to overflow, which the first windows make certain: no comparisons per score.
  __device__ void Add(const float (*scores)[4], float scale) {
    constexpr float kMuch = 1152921504606846976.0f;  // 2^60
    float terms[kHeads], total = 0;
#pragma unroll
    for (int h = 0; h < kHeads; ++h) {
      terms[h] = FastExp2(fmaf(scores[h / 2][h % 2], scale, -heads[h].reference)) +
                 FastExp2(fmaf(scores[h / 2][h % 2 + 2], scale, -heads[h].reference));
      total += terms[h];
    }
    if (__any_sync(kAllLanes, !(total < kMuch))) {
#pragma unroll
      for (int h = 0; h < kHeads; ++h) {
        LogSum& head = heads[h];
        const float a = scores[h / 2][h % 2] * scale, b = scores[h / 2][h % 2 + 2] * scale;
        const float most = fmaxf(head.reference, fmaxf(a, b));
        head.sum = head.sum * FastExp2(head.reference - most) + (FastExp2(a - most) + FastExp2(b - most));
        head.reference = most;
      }
    } else {
#pragma unroll
      for (int h = 0; h < kHeads; ++h) heads[h].sum += terms[h];
    }
  }

  // Over the eight lanes that share lane % 4.
  __device__ void MergeLanes() {
#pragma unroll
    for (int h = 0; h < kHeads; ++h) {
#pragma unroll
      for (int lanes = 4; lanes < 32; lanes *= 2) {
        heads[h].Merge(
            {__shfl_xor_sync(kAllLanes, heads[h].reference, lanes), __shfl_xor_sync(kAllLanes, heads[h].sum, lanes)});
      }
    }
  }
};

// Σ over heads of 2^(scale · score - log_sum), of the two windows in a thread's accumulators, in ascending order.
template <int kHeads>
__device__ inline void SumHeads(const float (*scores)[4], float scale, const float (&log_sums)[kHeads], float& low,
                                float& high) {
  low = 0, high = 0;
#pragma unroll
  for (int h = 0; h < kHeads; ++h) {
    low += FastExp2(fmaf(scores[h / 2][h % 2], scale, -log_sums[h]));
    high += FastExp2(fmaf(scores[h / 2][h % 2 + 2], scale, -log_sums[h]));
  }
}

// Values of the four blocks of 16 windows: lane 4g + t gives the scores of windows g and g + 8 of token t, and gets the
// value of block Block(lane), each in two lanes. `before` is the score of the window before, where Block(lane) is 0;
// it moves on by 16 windows.
struct BlockPool {
  __device__ static int Block(int lane) { return lane / 4 % 2 * 2 + lane / 16; }
  __device__ static bool Writes(int lane) { return lane / 8 % 2 == 0; }  // of the two lanes with one value

  __device__ static float Max(float low, float high, float& before) {
    const int lane = threadIdx.x % 32;
    const bool odd = lane / 4 % 2 != 0;
    // Even g go on with windows g and g + 1, odd ones with g + 7 and g + 8; then four windows, a block.
    const float other = __shfl_xor_sync(kAllLanes, odd ? low : high, 4);
    float most = fmaxf(odd ? high : low, other);
    most = fmaxf(most, __shfl_xor_sync(kAllLanes, most, 8));
    // Last windows of blocks 0 to 3 are in g = 2, 6 (what came from the odd neighbour), 3 and 7. Block 1 wants that of
    // block 0, and so on; block 0 the last one of the 16 windows before, and keeps that of block 3 for the next 16.
    const int from = lane / 16 != 0 ? 2 + odd : 7 - odd;
    const float last = __shfl_sync(kAllLanes, odd ? high : other, from * 4 + lane % 4);
    const bool first = Block(lane) == 0;
    most = fmaxf(most, first ? before : last);
    before = last;
    return most;
  }
};

// Gives every thread the log-sum-exps of its tokens (4·quad + lane % 4 for quads first_quad …) from the sums of all
// parts of the team, by way of `partial`, [part][token][head] in shared memory.
template <int kParts, int kHeads, int kQuads>
__device__ inline void ShareLogSums(LogSums<kHeads> (&sums)[kQuads], LogSum* partial, int part, int first_quad,
                                    int group, int barrier, float (&log_sums)[kQuads][kHeads]) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int k = 0; k < kQuads; ++k) {
    const int token = 4 * (first_quad + k) + lane % 4;
    sums[k].MergeLanes();
#pragma unroll
    for (int h = 0; h < kHeads; ++h) {
      if (lane < 4) partial[(part * kTeamTokens + token) * kHeads + h] = sums[k].heads[h];
    }
  }
  BarrierSync(barrier, kTeamThreads);
#pragma unroll
  for (int k = 0; k < kQuads; ++k) {
    const int token = 4 * (first_quad + k) + lane % 4;
#pragma unroll
    for (int h = 0; h < kHeads; ++h) {
      LogSum all;
      for (int p = 0; p < kParts; ++p) all.Merge(partial[(p * kTeamTokens + token) * kHeads + h]);
      log_sums[k][h] = all.Log2(h < group);
    }
  }
  BarrierSync(barrier, kTeamThreads);
}

// Values of a page's blocks for the tokens of a warp's quad, collected as the page's windows come by.
class PageValues {
 public:
  // Scores of windows lane / 4 and 8 + lane / 4 of the page's windows [16 · step, 16 · step + 16), in ascending order.
  __device__ void Take(int step, float low, float high) { values_[step] = BlockPool::Max(low, high, before_); }

  // After the last windows. `item` is that of lane % 4's token, negative if nobody wants it.
  __device__ void Write(const ChoicePlan& plan, int page, int64_t item, const BlockValues& out) {
    const int lane = threadIdx.x % 32, mine = BlockPool::Block(lane);
    float most = -1;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int block = page * static_cast<int>(kPageBlocks) + 4 * i + mine;
      if (block < plan.begin || block >= plan.end) values_[i] = -1;
      most = fmaxf(most, values_[i]);
    }
    most = fmaxf(most, __shfl_xor_sync(kAllLanes, most, 4));
    most = fmaxf(most, __shfl_xor_sync(kAllLanes, most, 16));
    if (item >= 0 && page * static_cast<int>(kPageBlocks) < plan.end) {
      const int64_t at = item * out.pages + page;
      if (BlockPool::Writes(lane)) out.values[at * 4 + mine] = {values_[0], values_[1], values_[2], values_[3]};
      if (lane < 4) out.ends[at] = {most, before_};
    }
    before_ = 0;
  }

 private:
  float values_[4];
  float before_ = 0;  // see BlockPool
};

// A tile of a range: `index` counts from the last one, since later tiles see more and go first.
struct TokenTile {
  __device__ TokenTile(const SparseParams& params, const TileRange& range, unsigned index)
      : slot(range.end - range.begin - 1 - static_cast<int>(index)),
        seq(params.sequences[(range.begin + slot) / range.per_sequence]),
        first((seq.position / range.tokens + (range.begin + slot) % range.per_sequence) * range.tokens) {}
  __device__ bool exists() const { return seq.rows > 0 && first < seq.position + seq.rows; }
  // Of block values, for the tile's token number `token`; -1 if the sequence does not have it here.
  __device__ int64_t Item(const SparseParams& params, const TileRange& range, int token, int head) const {
    const int64_t row = first + token - seq.position;
    if (row < 0 || row >= seq.rows) return -1;
    return (int64_t{slot} * range.tokens + token) * params.kv.kv_heads + head;
  }

  int slot;
  SparseSequence seq;
  int64_t first;  // position
};

}  // namespace salamander::kernels::cuda

#endif  // SALAMANDER_KERNELS_CUDA_SELECT_TILE_CUH_
