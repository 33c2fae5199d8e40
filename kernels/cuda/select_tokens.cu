// Stage 1 for single tokens, at the speed of memory: the tiers of a sequence are read once, straight into the fragments
// of mma.sync, by thread blocks all over the device.
//
//   LogSumKernel   ranges of 16 pages of K2 to partial log-sum-exps
//   ValuesKernel   K1 to block values, a warp a page
//   ChooseKernel   block values to the choice, a thread block per token and key/value head
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
constexpr int kSharedLimit = 96 * 1024;            // of all cards

struct Workspace {
  // For sequence s and head h, index i = s · kv_heads + h:
  LogSum* sums;   // [i][range][head of the group]
  float* values;  // [i][page][block], without the window before the page
  float* last;    // [i][page], score of the last window
  int64_t pages = 0, ranges = 0, bytes = 0;

  Workspace(const SparseParams& params, void* memory) {
    pages = std::max<int64_t>(1, (params.max_tokens + kPageTokens - 1) / kPageTokens);
    ranges = (pages + kRangePages - 1) / kRangePages;
    const int64_t items = params.count * params.kv.kv_heads;
    sums = static_cast<LogSum*>(memory);
    values = reinterpret_cast<float*>(sums + items * ranges * kSelectMaxGroup);
    last = values + items * pages * kPageBlocks;
    bytes = items * (ranges * kSelectMaxGroup * sizeof(LogSum) + pages * (kPageBlocks + 1) * sizeof(float));
  }
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
__global__ void __launch_bounds__(32 * kSumWarps) LogSumKernel(SparseParams params, ConstRows q, Workspace workspace) {
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
    workspace.sums[(item.item * workspace.ranges + range) * kSelectMaxGroup + threadIdx.x] = all;
  }
}

// Log-sum-exps of the group's heads from all ranges, to shared memory.
__device__ inline void MergeRanges(const Item& item, const Workspace& workspace, float* log_sums) {
  constexpr int kShares = 32 * kValueWarps / kSelectMaxGroup;
  __shared__ LogSum shares[kShares * kSelectMaxGroup];
  const int h = threadIdx.x % kSelectMaxGroup, share = threadIdx.x / kSelectMaxGroup;
  const int ranges = (item.coarse_pages() + kRangePages - 1) / kRangePages;
  LogSum sum;
  for (int range = share; range < ranges; range += kShares) {
    sum.Merge(workspace.sums[(item.item * workspace.ranges + range) * kSelectMaxGroup + h]);
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
    ValuesKernel(SparseParams params, ConstRows q, Workspace workspace, int warp_pages) {
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
  MergeRanges(item, workspace, shared_log_sums);
  float log_sums[kThreadHeads];
#pragma unroll
  for (int h = 0; h < kThreadHeads; ++h) log_sums[h] = shared_log_sums[token.Head(h)];

  const int visible = VisibleWindows(item.seq.position, kK1Stride);
  for (; page < last_page; page += kValueWarps) {
    const std::byte* next_rows = item.seq.pages[min(page + kValueWarps, end_page - 1)] + tier;
    float before = 0;
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
      const float value = BlockPool::Max(low, high, before);
      if (lane % 4 == 0 && BlockPool::Writes(lane)) {
        const int64_t block = (item.item * workspace.pages + page) * kPageBlocks + step * 4 + BlockPool::Block(lane);
        workspace.values[block] = value;
      }
    }
    if (lane == 0) workspace.last[item.item * workspace.pages + page] = before;
    rows = next_rows;
  }
}

// Block values of a token.
struct Values {
  __device__ float operator[](int block) const {
    const float value = values[block];
    return block > 0 && block % kPageBlocks == 0 ? fmaxf(value, last[block / kPageBlocks - 1]) : value;
  }
  const float *values, *last;
};

// A value that at least as many blocks reach as are chosen, because the best of so many threads do. In all threads.
__device__ inline float LowerBound(const ChoicePlan& plan, const Values& values, uint64_t* keys) {
  __shared__ float bound;
  const int threads = min(static_cast<int>(blockDim.x), plan.end - plan.begin);
  float most = 0;
#pragma unroll 8
  for (int block = plan.begin + threadIdx.x; block < plan.end; block += blockDim.x) {
    most = fmaxf(most, values.values[block]);
  }
  if (threadIdx.x < threads) keys[threadIdx.x] = BlockKey(most, threadIdx.x);
  __syncthreads();
  if (threadIdx.x < 32) {
    const float cut = threads > plan.places ? KeyValue(FindCut(keys, threads, plan.places)) : 0;
    if (threadIdx.x == 0) bound = cut;
  }
  __syncthreads();
  return bound;
}

// Every warp keeps the best of its share of the blocks, hardly more than are chosen in all; then the best of all lists.
__global__ void ChooseKernel(SparseParams params, Workspace workspace, int capacity, int32_t* blocks) {
  extern __shared__ __align__(16) std::byte shared[];
  AllowNext();
  WaitForPrevious();
  const Item item(params, blockIdx.x, blockIdx.y);
  if (item.seq.rows == 0) return;
  const ChoicePlan& plan = item.plan;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
  const int top_blocks = static_cast<int>(params.top_blocks);
  int32_t* out = blocks + (item.seq.row * params.kv.kv_heads + item.head) * params.top_blocks;
  if (!plan.contested()) {
    if (warp == 0) WriteUncontested(plan, top_blocks, out);
    return;
  }

  // Lists of the warps, then one that holds all of them at worst.
  auto* keys = reinterpret_cast<uint64_t*>(shared);
  auto* to_beat = reinterpret_cast<float*>(keys + warps * (capacity + plan.places));
  auto* counts = reinterpret_cast<int*>(to_beat + warps + 1);
  if (threadIdx.x <= warps) {
    to_beat[threadIdx.x] = -1;
    counts[threadIdx.x] = 0;
  }
  const Values values = {workspace.values + item.item * workspace.pages * kPageBlocks,
                         workspace.last + item.item * workspace.pages};
  const float bound = LowerBound(plan, values, keys);

  const BlockList list = {keys + warp * capacity, counts + warp, to_beat + warp};
  const int share = (plan.end - plan.begin + warps * 32 - 1) / (warps * 32) * 32;
  const int end = min(plan.end, plan.begin + (warp + 1) * share);
  for (int first = plan.begin + warp * share; first < end; first += 32) {
    const int block = first + lane;
    const float value = block < end ? values[block] : -1;
    if (value >= bound && value > *list.to_beat) list.Offer(value, block);
    __syncwarp();
    const bool full = *list.count > capacity - 32;
    __syncwarp();
    if (full) CutList(list, plan.places);
  }
  __syncthreads();

  const BlockList all = {keys + warps * capacity, counts + warps, to_beat + warps};
  if (*list.count > plan.places) CutList(list, plan.places);
  for (int i = lane; i < *list.count; i += 32) all.Offer(KeyValue(list.keys[i]), KeyBlock(list.keys[i]));
  __syncthreads();
  if (warp == 0) {
    CutList(all, plan.places);
    WriteContested(plan, all, top_blocks, out);
  }
}

cudaError_t LaunchChoose(const SparseParams& params, const Workspace& workspace, int32_t* blocks, cudaStream_t stream) {
  const int places = static_cast<int>(std::max<int64_t>(1, CompetingPlaces(params)));
  const int capacity = (2 * places + 31) / 32 * 32 + 32;
  auto bytes_of = [&](int warps) { return warps * (capacity + places) * 8 + (warps + 1) * 8; };
  int warps = 32;
  while (warps > 1 && bytes_of(warps) > kSharedLimit) warps /= 2;
  const size_t bytes = bytes_of(warps);
  const cudaError_t error =
      cudaFuncSetAttribute(ChooseKernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes));
  if (error != cudaSuccess) return error;
  const dim3 grid(static_cast<unsigned>(params.kv.kv_heads), static_cast<unsigned>(params.count));
  return LaunchChained(ChooseKernel, grid, warps * 32, bytes, stream, params, workspace, capacity, blocks);
}

template <int kDim>
cudaError_t Launch(const SparseParams& params, ConstRows q, const Workspace& workspace, int32_t* blocks,
                   cudaStream_t stream) {
  const auto heads = static_cast<unsigned>(params.kv.kv_heads), count = static_cast<unsigned>(params.count);
  // Enough thread blocks to fill the device (four on a multiprocessor) three times at full length, so that the last
  // ones leave little of it idle, and no more, so that queries are read rarely.
  const int64_t all_pages = workspace.pages * params.kv.kv_heads * params.count;
  const int64_t warp_pages =
      std::clamp<int64_t>(all_pages / (std::max(1, params.multiprocessors) * 3 * 4 * kValueWarps), 1, kMaxWarpPages);
  const auto values_blocks =
      static_cast<unsigned>((workspace.pages + warp_pages * kValueWarps - 1) / (warp_pages * kValueWarps));
  const dim3 sums_grid(static_cast<unsigned>(workspace.ranges), heads, count), values_grid(values_blocks, heads, count);
  cudaError_t error = LaunchChained(LogSumKernel<kDim>, sums_grid, 32 * kSumWarps, stream, params, q, workspace);
  if (error == cudaSuccess) {
    error = LaunchChained(ValuesKernel<kDim>, values_grid, 32 * kValueWarps, stream, params, q, workspace,
                          static_cast<int>(warp_pages));
  }
  return error != cudaSuccess ? error : LaunchChoose(params, workspace, blocks, stream);
}

}  // namespace

int64_t SelectTokensWorkspaceBytes(const SparseParams& params) { return Workspace(params, nullptr).bytes; }

cudaError_t SelectTokens(const SparseParams& params, ConstRows q, int32_t* blocks, void* workspace,
                         cudaStream_t stream) {
  const Workspace parts(params, workspace);
  switch (params.kv.head_dim) {
    case 32:
      return Launch<32>(params, q, parts, blocks, stream);
    case 64:
      return Launch<64>(params, q, parts, blocks, stream);
    case 128:
      return Launch<128>(params, q, parts, blocks, stream);
    default:
      return cudaErrorInvalidValue;
  }
}

}  // namespace salamander::kernels::cuda
