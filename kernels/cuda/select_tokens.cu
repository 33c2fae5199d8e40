// Stage 1 for single tokens, at the speed of memory: the tiers of a sequence are read once, straight into the fragments
// of mma.sync, by thread blocks all over the device.
//
//   LogSumKernel   ranges of pages of K2 to partial log-sum-exps
//   ValuesKernel   K1 to block values: a thread block takes pages, each of its warps a unit of 16 windows
//   ChooseTokens   select_tokens_choose.cu
//
// These are short, so what counts is how many trips to memory follow on each other. Before a kernel waits for the one
// in front of it, it looks up its pages and has the first rows brought to the L2 cache. Grids follow from params; what
// lies beyond a sequence's end returns at once.
#include <algorithm>

#include "kernels/cuda/device/chained.cuh"
#include "kernels/cuda/device/pieces.cuh"
#include "kernels/cuda/select.h"
#include "kernels/cuda/select_tile.cuh"

namespace salamander::kernels::cuda {
namespace {

constexpr int kSumWarps = 8, kValueWarps = kPageUnits;
static_assert(kPageK2 == 16 && kPageK1 == kValueWarps * kUnitWindows);
// Thread blocks of ValuesKernel on a multiprocessor.
constexpr int kValueOccupancy = 4;
// Pages of a warp, of LogSumKernel and of ValuesKernel: longer runs would save little of what begins a thread block.
constexpr int kMaxWarpPages = 8;
// Pages that a warp brings to the L2 cache ahead.
constexpr int kAheadPages = 2;
constexpr int kThreadHeads = kSelectMaxGroup / 4;  // of a thread's accumulators

int64_t PagesOf(const SparseParams& params) { return std::max<int64_t>(1, CeilDiv(params.max_tokens, kPageTokens)); }

// Pages that each of `warps` warps of the device takes of all sequences' and heads', if they are as long as they may
// be.
int WarpPages(const SparseParams& params, int64_t warps) {
  const int64_t all = PagesOf(params) * params.kv.kv_heads * params.count;
  return static_cast<int>(
      std::clamp<int64_t>(CeilDiv(all, warps * std::max(1, params.multiprocessors)), 1, kMaxWarpPages));
}

// Partial log-sum-exps, [sequence][kv head][range][head of the group].
struct RangeSums {
  RangeSums(const SparseParams& params, void* memory)
      : sums(static_cast<LogSum*>(memory)),
        range_pages(WarpPages(params, kSumWarps) * kSumWarps),
        ranges(CeilDiv(PagesOf(params), range_pages)) {}
  LogSum* sums;
  int range_pages;
  int64_t ranges;
};

// What a thread block works on.
struct Item {
  __device__ Item(const SparseParams& params, int head, int index)
      : seq(params.sequences[index]),
        plan(params, seq.position),
        head(head),
        group(static_cast<int>(params.heads / params.kv.kv_heads)),
        item(index * params.kv.kv_heads + head) {}
  __device__ bool contested() const { return seq.rows > 0 && plan.contested(); }
  __device__ int coarse_pages() const {
    return (VisibleWindows(seq.position, kK2Stride) + static_cast<int>(kPageK2) - 1) / static_cast<int>(kPageK2);
  }

  SparseSequence seq;
  ChoicePlan plan;
  int head, group;
  int64_t item;
};

// The `count` pages first, first + stride, … of a warp, at most 32: looked up together, so that the page table's
// latency is met once. `offset` is where in a page the warp reads.
class PageWalk {
 public:
  __device__ PageWalk(const Item& item, int first, int stride, int count, int64_t offset) : count_(count) {
    const int lane = threadIdx.x % 32;
    if (lane < count) data_ = item.seq.pages[first + lane * stride] + offset;
  }
  __device__ int count() const { return count_; }
  // All lanes call together.
  __device__ const std::byte* operator[](int i) const {
    return reinterpret_cast<const std::byte*>(__shfl_sync(kAllLanes, reinterpret_cast<unsigned long long>(data_), i));
  }

 private:
  int count_;
  const std::byte* data_ = nullptr;
};

// Tier rows times the token's query heads. Products are sums over dimensions in any order, so dimensions go where 16
// bytes of memory put them: of every 32, thread t = lane % 4 has 8t … 8t+7, the first four as columns 2t, 2t+1, 2t+8
// and 2t+9 of one step of 16, the others of the next.
template <int kDim>
class TokenScores {
 public:
  static constexpr int kSpans = kDim / 32;
  struct Windows {
    uint4 low[kSpans], high[kSpans];  // of rows lane / 4 and 8 + lane / 4
  };

  __device__ TokenScores(const Item& item, ConstRows q) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int n = 0; n < 2; ++n) {
      const int h = 8 * n + lane / 4;
      const bf16* from = q.data + item.seq.row * q.stride + (item.head * item.group + h) * kDim + lane % 4 * 8;
#pragma unroll
      for (int s = 0; s < kSpans; ++s) {
        queries_[n][s] = h < item.group ? *reinterpret_cast<const uint4*>(from + 32 * s) : uint4{0, 0, 0, 0};
      }
    }
  }

  // Has the 16 rows of each of the first pages brought near.
  __device__ static void Ahead(const PageWalk& walk) {
    const int ahead = min(walk.count(), kAheadPages);
    for (int i = 0; i < ahead; ++i) {
      const std::byte* rows = walk[i];
      if (threadIdx.x % 32 < 16 * kDim * 2 / 128) PrefetchL2(rows + threadIdx.x % 32 * 128);
    }
  }
  // 16 rows of a tier.
  __device__ static Windows Load(const std::byte* rows) {
    const int lane = threadIdx.x % 32;
    const std::byte* from = rows + lane / 4 * (kDim * 2) + lane % 4 * 16;
    Windows windows;
#pragma unroll
    for (int s = 0; s < kSpans; ++s) {
      windows.low[s] = __ldcs(reinterpret_cast<const uint4*>(from + 64 * s));
      windows.high[s] = __ldcs(reinterpret_cast<const uint4*>(from + 64 * s + 8 * kDim * 2));
    }
    return windows;
  }

  // Scores [n][e] of window lane / 4 and [n][2 + e] of window 8 + lane / 4, with head 8n + 2t + e.
  __device__ void Score(const Windows& windows, float (&scores)[2][4]) const {
#pragma unroll
    for (int n = 0; n < 2; ++n) {
#pragma unroll
      for (int c = 0; c < 4; ++c) scores[n][c] = 0;
#pragma unroll
      for (int s = 0; s < kSpans; ++s) {
        const uint4 low = windows.low[s], high = windows.high[s], b = queries_[n][s];
        const uint32_t first[4] = {low.x, high.x, low.y, high.y}, second[4] = {low.z, high.z, low.w, high.w};
        MmaBf16(scores[n], first, b.x, b.y);
        MmaBf16(scores[n], second, b.z, b.w);
      }
    }
  }

  // The head of a thread's scores [h / 2][h % 2].
  __device__ static int Head(int h) { return h / 2 * 8 + threadIdx.x % 4 * 2 + h % 2; }

 private:
  uint4 queries_[2][kSpans];  // of heads lane / 4 and 8 + lane / 4
};

template <int kDim>
__global__ void __launch_bounds__(32 * kSumWarps, 2) LogSumKernel(SparseParams params, ConstRows q, RangeSums partial) {
  const Item item(params, blockIdx.y, blockIdx.z);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int range = blockIdx.x, begin_page = range * partial.range_pages;
  const int end_page = item.contested() ? min(item.coarse_pages(), begin_page + partial.range_pages) : 0;
  const int first_page = begin_page + warp;
  const PageWalk walk(item, first_page, kSumWarps, max(0, end_page - first_page + kSumWarps - 1) / kSumWarps,
                      params.kv.k2(item.head, 0));
  TokenScores<kDim>::Ahead(walk);
  WaitForPrevious();
  AllowNext();
  if (begin_page >= end_page) return;

  const int visible = VisibleWindows(item.seq.position, kK2Stride);
  typename TokenScores<kDim>::Windows windows;
  if (walk.count() > 0) windows = TokenScores<kDim>::Load(walk[0]);
  const TokenScores<kDim> token(item, q);
  LogSums<kThreadHeads> sums;
  for (int i = 0; i < walk.count(); ++i) {
    const auto now = windows;
    if (i + 1 < walk.count()) windows = token.Load(walk[i + 1]);
    float scores[2][4];
    token.Score(now, scores);
    const int window = (first_page + i * kSumWarps) * static_cast<int>(kPageK2) + lane / 4;
#pragma unroll
    for (int n = 0; n < 2; ++n) {
#pragma unroll
      for (int c = 0; c < 4; ++c) {
        if (window + c / 2 * 8 >= visible) scores[n][c] = __int_as_float(0xff800000);
      }
    }
    sums.Add(scores, ExponentScale<kDim>());
  }

  __shared__ LogSum of_warps[kSumWarps][kSelectMaxGroup];
  sums.MergeLanes();
  if (lane < 4) {
#pragma unroll
    for (int h = 0; h < kThreadHeads; ++h) of_warps[warp][token.Head(h)] = sums.heads[h];
  }
  __syncthreads();
  if (threadIdx.x < kSelectMaxGroup) {
    LogSum parts[kSumWarps];
#pragma unroll
    for (int w = 0; w < kSumWarps; ++w) parts[w] = of_warps[w][threadIdx.x];
    partial.sums[(item.item * partial.ranges + range) * kSelectMaxGroup + threadIdx.x] = LogSum::Of(parts);
  }
}

// Log-sum-exps of a thread's heads, from all ranges.
__device__ inline void MergeRanges(const Item& item, const RangeSums& partial, float (&log_sums)[kThreadHeads]) {
  constexpr int kShares = 32 * kValueWarps / kSelectMaxGroup, kBatch = 4;
  static_assert(kSelectMaxGroup == 16);
  __shared__ LogSum of_warps[kValueWarps][kSelectMaxGroup];
  const int h = threadIdx.x % kSelectMaxGroup, share = threadIdx.x / kSelectMaxGroup;
  const int ranges = (item.coarse_pages() + partial.range_pages - 1) / partial.range_pages;
  const LogSum* from = partial.sums + item.item * partial.ranges * kSelectMaxGroup + h;
  LogSum sum;
  for (int first = share; first < ranges; first += kShares * kBatch) {
    LogSum parts[kBatch];
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      const int range = first + i * kShares;
      if (range < ranges) parts[i] = from[range * kSelectMaxGroup];
    }
    sum.Merge(LogSum::Of(parts));
  }
  sum.Merge({__shfl_xor_sync(kAllLanes, sum.reference, 16), __shfl_xor_sync(kAllLanes, sum.sum, 16)});
  if (threadIdx.x % 32 < kSelectMaxGroup) of_warps[threadIdx.x / 32][h] = sum;
  __syncthreads();
#pragma unroll
  for (int i = 0; i < kThreadHeads; ++i) {
    const int head = TokenScores<32>::Head(i);
    LogSum parts[kValueWarps];
#pragma unroll
    for (int w = 0; w < kValueWarps; ++w) parts[w] = of_warps[w][head];
    log_sums[i] = LogSum::Of(parts).Log2(head < item.group);
  }
}

template <int kDim>
__global__ void __launch_bounds__(32 * kValueWarps, kValueOccupancy)
    ValuesKernel(SparseParams params, ConstRows q, RangeSums partial, TokenValues values, int block_pages) {
  const Item item(params, blockIdx.y, blockIdx.z);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, begin_page = blockIdx.x * block_pages;
  const int end_page =
      item.contested() ? min((item.plan.end - 1) / static_cast<int>(kPageBlocks) + 1, begin_page + block_pages) : 0;
  const PageWalk walk(item, begin_page, 1, max(0, end_page - begin_page), params.kv.k1(item.head, warp * kUnitWindows));
  TokenScores<kDim>::Ahead(walk);
  WaitForPrevious();
  AllowNext();
  if (begin_page >= end_page) return;

  // The first rows are on their way while the log-sum-exps are gathered.
  auto windows = TokenScores<kDim>::Load(walk[0]);
  const TokenScores<kDim> token(item, q);
  float log_sums[kThreadHeads];
  MergeRanges(item, partial, log_sums);

  const int visible = VisibleWindows(item.seq.position, kK1Stride);
  auto* const block_values = reinterpret_cast<float*>(values.blocks + item.item * values.units);
  float* const last = values.last + item.item * values.units;
  for (int i = 0; i < walk.count(); ++i) {
    const auto now = windows;
    if (i + 1 < walk.count()) windows = token.Load(walk[i + 1]);
    float scores[2][4], low, high;
    token.Score(now, scores);
    SumHeads<kThreadHeads>(scores, ExponentScale<kDim>(), log_sums, low, high);
#pragma unroll
    for (int lanes = 1; lanes < 4; lanes *= 2) {
      low += __shfl_xor_sync(kAllLanes, low, lanes);
      high += __shfl_xor_sync(kAllLanes, high, lanes);
    }
    const int unit = (begin_page + i) * kPageUnits + warp;
    // Only without forced local blocks does a block compete whose last window is hidden.
    const int window = unit * kUnitWindows + lane / 4;
    if (window >= visible) low = 0;
    if (window + 8 >= visible) high = 0;
    float end = 0;  // of the unit before, which the choice adds
    const float most = BlockPool::Max(low, high, end);
    const int block = unit * kUnitBlocks + BlockPool::Block(lane);
    if (lane % 4 == 0 && BlockPool::Writes(lane)) {
      block_values[block] = block >= item.plan.begin && block < item.plan.end ? most : -1;
    }
    // Lane 0 has the unit's first block, and with it its last window.
    if (lane == 0) last[unit] = end;
  }
}

template <int kDim>
cudaError_t Launch(const SparseParams& params, ConstRows q, const RangeSums& sums, const TokenValues& values,
                   cudaStream_t stream) {
  const auto heads = static_cast<unsigned>(params.kv.kv_heads), count = static_cast<unsigned>(params.count);
  const int block_pages = WarpPages(params, kValueOccupancy);  // a warp has a unit of each
  const dim3 sums_grid(static_cast<unsigned>(sums.ranges), heads, count);
  const dim3 values_grid(static_cast<unsigned>(CeilDiv(PagesOf(params), block_pages)), heads, count);
  const cudaError_t error = LaunchChained(LogSumKernel<kDim>, sums_grid, 32 * kSumWarps, stream, params, q, sums);
  if (error != cudaSuccess) return error;
  return LaunchChained(ValuesKernel<kDim>, values_grid, 32 * kValueWarps, stream, params, q, sums, values, block_pages);
}

// The workspace: values of blocks, last windows of units, partial sums.
struct TokensPlan {
  explicit TokensPlan(const SparseParams& params)
      : units(params.count * params.kv.kv_heads * PagesOf(params) * kPageUnits),
        sum_bytes(params.count * params.kv.kv_heads * RangeSums(params, nullptr).ranges * kSelectMaxGroup *
                  static_cast<int64_t>(sizeof(LogSum))) {}
  int64_t bytes() const { return units * static_cast<int64_t>(sizeof(float4) + sizeof(float)) + sum_bytes; }

  int64_t units;  // of all items
  int64_t sum_bytes;
};

}  // namespace

int64_t SelectTokensWorkspaceBytes(const SparseParams& params) { return TokensPlan(params).bytes(); }

cudaError_t SelectTokens(const SparseParams& params, ConstRows q, int32_t* blocks, void* workspace,
                         cudaStream_t stream) {
  const int64_t units = TokensPlan(params).units;
  auto* const of_blocks = static_cast<float4*>(workspace);
  auto* const last = reinterpret_cast<float*>(of_blocks + units);
  const TokenValues values = {of_blocks, last, PagesOf(params) * kPageUnits};
  const RangeSums sums(params, last + units);
  auto score = [&](auto dim) { return Launch<dim.value>(params, q, sums, values, stream); };
  cudaError_t error = cudaErrorInvalidValue;
  switch (params.kv.head_dim) {
    case 32:
      error = score(std::integral_constant<int, 32>());
      break;
    case 64:
      error = score(std::integral_constant<int, 64>());
      break;
    case 128:
      error = score(std::integral_constant<int, 128>());
      break;
  }
  return error == cudaSuccess ? ChooseTokens(params, values, blocks, stream) : error;
}

}  // namespace salamander::kernels::cuda
