// Stage 1 for single tokens, at the speed of memory: the tiers of a sequence are read once, straight into the fragments
// of mma.sync, by thread blocks all over the device.
//
//   LogSumKernel   ranges of 16 pages of K2 to partial log-sum-exps
//   ValuesKernel   K1 to block values, a warp a page
//
// Grids follow from params; what lies beyond a sequence's end returns at once.
#include "kernels/cuda/device/chained.cuh"
#include "kernels/cuda/select.h"
#include "kernels/cuda/select_tile.cuh"

namespace salamander::kernels::cuda {
namespace {

constexpr int kSumWarps = 8, kValueWarps = 4;
constexpr int kRangePages = 16;
constexpr int kMaxWarpPages = 8;
constexpr int kThreadHeads = kSelectMaxGroup / 4;  // of a thread's accumulators

// Partial log-sum-exps, [sequence][kv head][range][head of the group].
struct RangeSums {
  RangeSums(const SparseParams& params, void* memory)
      : sums(static_cast<LogSum*>(memory)),
        pages(std::max<int64_t>(1, (params.max_tokens + kPageTokens - 1) / kPageTokens)),
        ranges((pages + kRangePages - 1) / kRangePages) {}
  LogSum* sums;
  int64_t pages, ranges;
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
__global__ void __launch_bounds__(32 * kSumWarps) LogSumKernel(SparseParams params, ConstRows q, RangeSums partial) {
  AllowNext();
  WaitForPrevious();
  const Item item(params, blockIdx.y, blockIdx.z);
  const int range = blockIdx.x, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  if (!item.contested() || range * kRangePages >= item.coarse_pages()) return;
  const int end_page = min(item.coarse_pages(), (range + 1) * kRangePages);
  const int visible = VisibleWindows(item.seq.position, kK2Stride);
  const int64_t tier = params.kv.k2(item.head, 0);

  const TokenScores<kDim> token(item, q);
  LogSums<kThreadHeads> sums;
  int page = range * kRangePages + warp;
  typename TokenScores<kDim>::Windows windows;
  if (page < end_page) windows = token.Load(item.seq.pages[page] + tier);
  for (; page < end_page; page += kSumWarps) {
    const auto now = windows;
    if (page + kSumWarps < end_page) windows = token.Load(item.seq.pages[page + kSumWarps] + tier);
    float scores[2][4];
    token.Score(now, scores);
    const int window = page * static_cast<int>(kPageK2) + lane / 4;
#pragma unroll
    for (int n = 0; n < 2; ++n) {
#pragma unroll
      for (int c = 0; c < 4; ++c) {
        if (window + c / 2 * 8 >= visible) scores[n][c] = __int_as_float(0xff800000);
      }
    }
    sums.Add(scores, ExponentScale<kDim>());
  }

  __shared__ LogSum of_warps[kSumWarps * kSelectMaxGroup];
  sums.MergeLanes();
  if (lane < 4) {
#pragma unroll
    for (int h = 0; h < kThreadHeads; ++h) of_warps[warp * kSelectMaxGroup + token.Head(h)] = sums.heads[h];
  }
  __syncthreads();
  if (threadIdx.x < kSelectMaxGroup) {
    LogSum all;
    for (int w = 0; w < kSumWarps; ++w) all.Merge(of_warps[w * kSelectMaxGroup + threadIdx.x]);
    partial.sums[(item.item * partial.ranges + range) * kSelectMaxGroup + threadIdx.x] = all;
  }
}

// Log-sum-exps of the group's heads from all ranges, to shared memory.
__device__ inline void MergeRanges(const Item& item, const RangeSums& partial, float* log_sums) {
  constexpr int kShares = 32 * kValueWarps / kSelectMaxGroup;
  __shared__ LogSum shares[kShares * kSelectMaxGroup];
  const int h = threadIdx.x % kSelectMaxGroup, share = threadIdx.x / kSelectMaxGroup;
  const int ranges = (item.coarse_pages() + kRangePages - 1) / kRangePages;
  LogSum sum;
  for (int range = share; range < ranges; range += kShares) {
    sum.Merge(partial.sums[(item.item * partial.ranges + range) * kSelectMaxGroup + h]);
  }
  shares[threadIdx.x] = sum;
  __syncthreads();
  if (share == 0) {
    for (int s = 1; s < kShares; ++s) sum.Merge(shares[s * kSelectMaxGroup + h]);
    log_sums[h] = sum.Log2(h < item.group);
  }
  __syncthreads();
}

template <int kDim>
__global__ void __launch_bounds__(32 * kValueWarps)
    ValuesKernel(SparseParams params, ConstRows q, RangeSums partial, BlockValues values, int warp_pages) {
  AllowNext();
  WaitForPrevious();
  const Item item(params, blockIdx.y, blockIdx.z);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  if (!item.contested()) return;
  const int end_page = (item.plan.end - 1) / kPageBlocks + 1;
  const int begin_page = blockIdx.x * warp_pages * kValueWarps;
  if (begin_page >= end_page) return;

  // The first rows are on their way while the log-sum-exps are gathered.
  constexpr int kSteps = kPageK1 / 16;
  const int64_t tier = params.kv.k1(item.head, 0);
  const int last_page = min(end_page, begin_page + warp_pages * kValueWarps);
  int page = begin_page + warp;
  const std::byte* rows = item.seq.pages[min(page, end_page - 1)] + tier;
  const TokenScores<kDim> token(item, q);
  auto windows = token.Load(rows);

  __shared__ float shared_log_sums[kSelectMaxGroup];
  MergeRanges(item, partial, shared_log_sums);
  float log_sums[kThreadHeads];
#pragma unroll
  for (int h = 0; h < kThreadHeads; ++h) log_sums[h] = shared_log_sums[token.Head(h)];

  const int visible = VisibleWindows(item.seq.position, kK1Stride);
  PageValues page_values;
  for (; page < last_page; page += kValueWarps) {
    const std::byte* next_rows = item.seq.pages[min(page + kValueWarps, end_page - 1)] + tier;
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
      const auto now = windows;
      if (step + 1 < kSteps) {
        windows = token.Load(rows + (step + 1) * 16 * kDim * 2);
      } else if (page + kValueWarps < last_page) {
        windows = token.Load(next_rows);
      }
      float scores[2][4], low, high;
      token.Score(now, scores);
      SumHeads<kThreadHeads>(scores, ExponentScale<kDim>(), log_sums, low, high);
#pragma unroll
      for (int lanes = 1; lanes < 4; lanes *= 2) {
        low += __shfl_xor_sync(kAllLanes, low, lanes);
        high += __shfl_xor_sync(kAllLanes, high, lanes);
      }
      // Only without forced local blocks does a block compete whose last window is hidden.
      const int window = page * static_cast<int>(kPageK1) + step * 16 + lane / 4;
      if (window >= visible) low = 0;
      if (window + 8 >= visible) high = 0;
      page_values.Take(step, low, high);
    }
    page_values.Write(item.plan, page, lane % 4 == 0 ? item.item : -1, values);
    rows = next_rows;
  }
}

template <int kDim>
cudaError_t Launch(const SparseParams& params, ConstRows q, const BlockValues& values, const RangeSums& sums,
                   cudaStream_t stream) {
  const auto heads = static_cast<unsigned>(params.kv.kv_heads), count = static_cast<unsigned>(params.count);
  // Enough thread blocks to fill the device (four on a multiprocessor) three times at full length, so that the last
  // ones leave little of it idle, and no more, so that queries are read rarely.
  const int64_t all_pages = sums.pages * params.kv.kv_heads * params.count;
  const int64_t warp_pages =
      std::clamp<int64_t>(all_pages / (std::max(1, params.multiprocessors) * 3 * 4 * kValueWarps), 1, kMaxWarpPages);
  const auto values_blocks =
      static_cast<unsigned>((sums.pages + warp_pages * kValueWarps - 1) / (warp_pages * kValueWarps));
  const dim3 sums_grid(static_cast<unsigned>(sums.ranges), heads, count), values_grid(values_blocks, heads, count);
  const cudaError_t error = LaunchChained(LogSumKernel<kDim>, sums_grid, 32 * kSumWarps, stream, params, q, sums);
  if (error != cudaSuccess) return error;
  return LaunchChained(ValuesKernel<kDim>, values_grid, 32 * kValueWarps, stream, params, q, sums, values,
                       static_cast<int>(warp_pages));
}

}  // namespace

int64_t SelectTokensSumBytes(const SparseParams& params) {
  return params.count * params.kv.kv_heads * RangeSums(params, nullptr).ranges * kSelectMaxGroup * sizeof(LogSum);
}

cudaError_t SelectTokens(const SparseParams& params, ConstRows q, const BlockValues& values, void* sums,
                         cudaStream_t stream) {
  const RangeSums ranges(params, sums);
  switch (params.kv.head_dim) {
    case 32:
      return Launch<32>(params, q, values, ranges, stream);
    case 64:
      return Launch<64>(params, q, values, ranges, stream);
    case 128:
      return Launch<128>(params, q, values, ranges, stream);
    default:
      return cudaErrorInvalidValue;
  }
}

}  // namespace salamander::kernels::cuda
