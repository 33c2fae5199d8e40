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
#include "kernels/cuda/select_plan.cuh"
#include "kernels/cuda/select_top.cuh"

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

// Shared memory of a team: lists of its tokens' best blocks and what its warps tell each other.
template <int kParts>
struct TeamMemory {
  static constexpr int kRoom = kPageBlocks * kParts;  // blocks that may enter a list between two cuts

  __host__ __device__ static int Capacity(int places) { return (2 * places + 31) / 32 * 32 + kRoom; }
  template <int kHeads>
  __host__ __device__ static int Bytes(int places) {
    return std::max<int>(kTeamTokens * Capacity(places) * 8,
                         kParts * kTeamTokens * kHeads * static_cast<int>(sizeof(LogSum))) +
           kTeamTokens * (2 * kParts + 2) * 4;
  }

  template <int kHeads>
  __device__ static TeamMemory At(std::byte* shared, int places) {
    TeamMemory memory;
    memory.keys = reinterpret_cast<uint64_t*>(shared);
    memory.capacity = Capacity(places);
    memory.last_scores = reinterpret_cast<float*>(shared + Bytes<kHeads>(places)) - kTeamTokens * (2 * kParts + 2);
    memory.to_beat = memory.last_scores + 2 * kParts * kTeamTokens;
    memory.counts = reinterpret_cast<int*>(memory.to_beat + kTeamTokens);
    return memory;
  }
  __device__ BlockList list(int token) const { return {keys + token * capacity, counts + token, to_beat + token}; }
  // [part][token][head], in the place of the lists before these are used.
  __device__ LogSum* partial_sums() const { return reinterpret_cast<LogSum*>(keys); }

  uint64_t* keys;      // [token][capacity]
  float* last_scores;  // [2][part][token], of the last window of each part's page
  float* to_beat;      // [token]
  int* counts;         // [token]
  int capacity;
};

// Gives every thread the log-sum-exps of its tokens (4·quad + lane % 4 for quads first_quad …) from the sums of all
// parts of the team.
template <int kParts, int kHeads, int kQuads>
__device__ inline void ShareLogSums(LogSums<kHeads> (&sums)[kQuads], const TeamMemory<kParts>& memory, int part,
                                    int first_quad, int group, int barrier, float (&log_sums)[kQuads][kHeads]) {
  const int lane = threadIdx.x % 32;
  LogSum* partial = memory.partial_sums();
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

// A thread's part in choosing blocks for its tokens, one of each of kQuads groups of four. Part p of a team walks every
// kParts-th page, the team kParts pages at a time.
template <int kParts, int kQuads>
class BlockChooser {
 public:
  __device__ BlockChooser(const ChoicePlan& plan, const TeamMemory<kParts>& memory, int part, int first_quad)
      : memory_(memory), begin_(plan.begin), end_(plan.end), places_(plan.places), part_(part) {
#pragma unroll
    for (int k = 0; k < kQuads; ++k) {
      token_[k] = 4 * (first_quad + k) + threadIdx.x % 4;
      before_page_[k] = 0;
    }
    Begin();
  }

  // Scores of windows lane / 4 and 8 + lane / 4 of the 16 that belong to blocks [block, block + 4), in ascending order
  // within a page.
  __device__ void Take(int quad, float low, float high, int block) {
    const int lane = threadIdx.x % 32, mine = block + BlockPool::Block(lane);
    const float value = BlockPool::Max(low, high, before_[quad]);
    if (mine % kPageBlocks == 0) {
      first_[quad] = value;  // waits for the last window of the page before
    } else if (BlockPool::Writes(lane)) {
      Offer(quad, value, mine);
    }
  }

  // After the last windows of all parts' pages; `page` is this part's.
  __device__ void EndPages(int page, int barrier) {
    const int lane = threadIdx.x % 32;
    float* last = memory_.last_scores + parity_ * kParts * kTeamTokens;
    parity_ ^= 1;
    if (lane < 4) {
#pragma unroll
      for (int k = 0; k < kQuads; ++k) last[part_ * kTeamTokens + token_[k]] = before_[k];
    }
    BarrierSync(barrier, kTeamThreads);
    for (int token = threadIdx.x / 32 % 4; token < kTeamTokens; token += 4) {
      const BlockList list = memory_.list(token);
      if (*list.count > memory_.capacity - TeamMemory<kParts>::kRoom) CutList(list, places_);
    }
    BarrierSync(barrier, kTeamThreads);
    // Still against what was to beat before the cut: these blocks may be lower than those in the list.
#pragma unroll
    for (int k = 0; k < kQuads; ++k) {
      const float before = part_ == 0 ? before_page_[k] : last[(part_ - 1) * kTeamTokens + token_[k]];
      before_page_[k] = last[(kParts - 1) * kTeamTokens + token_[k]];
      if (lane < 4) Offer(k, fmaxf(first_[k], before), page * kPageBlocks);
    }
    Begin();
  }

 private:
  __device__ void Begin() {
#pragma unroll
    for (int k = 0; k < kQuads; ++k) {
      before_[k] = 0;
      to_beat_[k] = memory_.to_beat[token_[k]];
    }
  }
  __device__ void Offer(int quad, float value, int block) {
    if (value > to_beat_[quad] && block >= begin_ && block < end_) memory_.list(token_[quad]).Offer(value, block);
  }

  TeamMemory<kParts> memory_;
  int begin_, end_, places_, part_;
  int parity_ = 0;
  int token_[kQuads];
  float to_beat_[kQuads];
  float first_[kQuads];        // value of the page's first block, without the window before it
  float before_[kQuads];       // see BlockPool
  float before_page_[kQuads];  // the last score before all parts' pages
};

// Empty lists; tokens that the sequence does not have here take no block. By the threads of a team; they must meet
// before the lists are used.
template <int kParts>
__device__ inline void ClearLists(const TeamMemory<kParts>& memory, const SparseSequence& seq, int64_t first) {
  const int token = threadIdx.x % kTeamThreads;
  if (token >= kTeamTokens) return;
  const int64_t row = first + token - seq.position;
  memory.counts[token] = 0;
  memory.to_beat[token] = row >= 0 && row < seq.rows ? -1.0f : __int_as_float(0x7f800000);
}

// Writes the choices of a team's tokens, after EndPages of all.
template <int kParts>
__device__ inline void WriteChoices(const SparseParams& params, const SparseSequence& seq, int64_t first, int head,
                                    const ChoicePlan& plan, const TeamMemory<kParts>& memory, int32_t* blocks) {
  for (int token = threadIdx.x / 32 % 4; token < kTeamTokens; token += 4) {
    const int64_t row = first + token - seq.position;
    if (row < 0 || row >= seq.rows) continue;
    const int top_blocks = static_cast<int>(params.top_blocks);
    int32_t* out = blocks + ((seq.row + row) * params.kv.kv_heads + head) * params.top_blocks;
    if (!plan.contested()) {
      WriteUncontested(plan, top_blocks, out);
      continue;
    }
    CutList(memory.list(token), plan.places);
    WriteContested(plan, memory.list(token), top_blocks, out);
  }
}

}  // namespace salamander::kernels::cuda

#endif  // SALAMANDER_KERNELS_CUDA_SELECT_TILE_CUH_
