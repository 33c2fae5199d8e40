// Stage 1 for tiles of tokens on Hopper: two warpgroups, a team of 8 tokens each, take products of the same 64 windows
// with wgmma, and each has the product of the next windows under way while it takes exponentials of these. A third
// warpgroup copies tiers to a ring of shared memory. Per score, what is not a product is a multiply-add, an exponential
// and an addition; at 128 dimensions a multiprocessor does 16 scores' products a cycle and 16 exponentials.
#include "kernels/cuda/device/mbarrier.cuh"
#include "kernels/cuda/device/wgmma_shared.cuh"
#include "kernels/cuda/select.h"
#include "kernels/cuda/select_tile.cuh"

namespace salamander::kernels::cuda {
namespace {

constexpr int kTeams = 2;
constexpr int kTokens = kSelectTileTokensSm90a;
static_assert(kTokens == kTeams * kTeamTokens);
constexpr int kConsumers = kTeams * kTeamThreads;
constexpr int kThreads = kConsumers + kTeamThreads;
constexpr int kHeads = kSelectMaxGroup;
constexpr int kQuads = 2;                         // of tokens a thread has a part in
constexpr int kParts = 4;                         // warps of a team, each with its own windows
constexpr int kPartRows = kTileWindows / kParts;  // of a tile
constexpr int kPageSteps = kPageK1 / kPartRows;   // tiles that a page of each part takes
constexpr int kStages = 8;
static_assert(kPartRows == kPageK2);

template <int kDim>
struct Shared {
  using Queries = SharedTile<kDim, kTeamTokens * kHeads>;
  using Tile = SharedTile<kDim, kTileWindows>;
  static constexpr int kTiles = kTeams * Queries::kBytes, kBarriers = kTiles + kStages * Tile::kBytes,
                       kSums = kBarriers + 2 * kStages * 8,
                       kTeamSums = kParts * kTeamTokens * kHeads * static_cast<int>(sizeof(LogSum)),
                       kBytes = kSums + kTeams * kTeamSums;
  static_assert(kBytes <= 227 * 1024);
};

// The tiles of windows that a tile of tokens goes through: steps of K2, then of K1 for the windows of competing blocks.
struct Walk {
  __device__ Walk(const SparseParams& params, const SparseSequence& seq, const ChoicePlan& plan, int64_t first)
      : coarse_pages((VisibleWindows(min(first + kTokens, seq.position + seq.rows) - 1, kK2Stride) + kPageK2 - 1) /
                     kPageK2),
        first_page(max(4 * plan.begin - 1, 0) / kPageK1),
        end_page((plan.end - 1) / kPageBlocks + 1),
        coarse_steps((coarse_pages + kParts - 1) / kParts),
        steps(coarse_steps + (end_page - first_page + kParts - 1) / kParts * kPageSteps) {}
  int coarse_pages;
  int first_page, end_page;  // of K1
  int coarse_steps, steps;
};

// The ring of tiles. Barriers: tiles become full, then empty again.
template <int kDim>
struct Ring {
  using Tile = typename Shared<kDim>::Tile;

  __device__ explicit Ring(std::byte* shared)
      : tiles(SharedAddress(shared + Shared<kDim>::kTiles)),
        full(reinterpret_cast<uint64_t*>(shared + Shared<kDim>::kBarriers)),
        empty(full + kStages) {}
  // By one thread.
  __device__ void Init() const {
    for (int stage = 0; stage < kStages; ++stage) {
      InitBarrier(full + stage, kTeamThreads);
      InitBarrier(empty + stage, kConsumers / 32);
    }
  }
  __device__ uint32_t tile(int step) const { return tiles + step % kStages * Tile::kBytes; }
  __device__ uint64_t operand(int step) const { return SwizzledOperand(tile(step)); }
  __device__ void WaitFull(int step) const { WaitFor(full + step % kStages, step / kStages % 2); }
  __device__ void WaitEmpty(int step) const {
    if (step >= kStages) WaitFor(empty + step % kStages, step / kStages % 2 ^ 1);
  }
  __device__ void SignFull(int step) const { ArriveAt(full + step % kStages); }
  __device__ void SignEmpty(int step) const {
    if (threadIdx.x % 32 == 0) ArriveAt(empty + step % kStages);
  }

  uint32_t tiles;
  uint64_t *full, *empty;
};

// The third warpgroup.
template <int kDim>
__device__ inline void Produce(const SparseParams& params, const SparseSequence& seq, int head, const Walk& walk,
                               const Ring<kDim>& ring) {
  constexpr int kInFlight = 5;  // tiles
  const unsigned thread = threadIdx.x % kTeamThreads;
  const int64_t k1 = params.kv.k1(head, 0), k2 = params.kv.k2(head, 0);
  auto sign = [&](int step) {
    FenceAsyncProxy();
    ring.SignFull(step);
  };
  for (int step = 0; step < walk.steps; ++step) {
    ring.WaitEmpty(step);
    const int fine = step - walk.coarse_steps;
    if (fine < 0) {
      LoadTier<kDim, kPartRows>(seq.pages, k2, step * kParts, walk.coarse_pages, 0, thread, kTeamThreads,
                                ring.tile(step));
    } else {
      LoadTier<kDim, kPartRows>(seq.pages, k1, walk.first_page + fine / kPageSteps * kParts, walk.end_page,
                                fine % kPageSteps * kPartRows, thread, kTeamThreads, ring.tile(step));
    }
    CommitCopies();
    if (step >= kInFlight) {
      WaitCopies<kInFlight>();
      sign(step - kInFlight);
    }
  }
  WaitCopies<0>();
  for (int step = max(0, walk.steps - kInFlight); step < walk.steps; ++step) sign(step);
}

// Starts scores = windows of the tile · columns of the queries, both SwizzledOperands of their first 16 dimensions.
template <int kDim, int kColumnTiles>
__device__ inline void StartScores(uint64_t tile, uint64_t queries, float (&scores)[kColumnTiles][4]) {
  using Layout = Shared<kDim>;
  constexpr int kSlabSteps = 4;  // of 16 dimensions in a row of 128 bytes
  WgmmaFence();
  WgmmaSharedFirst(scores, tile, queries);
#pragma unroll
  for (int k = 1; k < kDim / 16; ++k) {
    // Operands count 16 bytes.
    const int slab = k / kSlabSteps, within = k % kSlabSteps * 32;
    WgmmaShared(scores, tile + (slab * Layout::Tile::kSlabBytes + within) / 16,
                queries + (slab * Layout::Queries::kSlabBytes + within) / 16);
  }
  WgmmaCommit();
}

// Log-sum-exps over K2. The product for the second quad is under way while sums of the first are taken.
template <int kDim>
__device__ inline void TakeCoarse(const Walk& walk, const Ring<kDim>& ring, uint64_t queries, int64_t position,
                                  int all_see, LogSums<kHeads> (&sums)[kQuads]) {
  constexpr float kScale = ExponentScale<kDim>();
  const int warp = threadIdx.x / 32 % kParts;
  int visible[kQuads];
  float scores[kQuads][kHeads / 2][4];
#pragma unroll
  for (int k = 0; k < kQuads; ++k) visible[k] = VisibleWindows(position + 4 * k, kK2Stride);
  auto add = [&](int k, int step) {
    const int window = step * kTileWindows + warp * kPartRows;
    if (window + kPartRows > all_see) Hide<kHeads>(window, visible[k], scores[k]);
    sums[k].Add(scores[k], kScale);
  };

  for (int step = 0; step < walk.coarse_steps; ++step) {
    ring.WaitFull(step);
    StartScores<kDim>(ring.operand(step), queries, scores[0]);
    StartScores<kDim>(ring.operand(step), queries + 4 * kHeads * 128 / 16, scores[1]);
    WgmmaWait<1>();
    PinRegisters(scores[0]);
    add(0, step);
    WgmmaWait<0>();
    PinRegisters(scores[1]);
    ring.SignEmpty(step);
    add(1, step);
  }
}

// Block values from K1. The product of the next tile is under way while this one's scores are taken, but none from one
// group of pages to the next: a product under way from one round of a loop to the next makes ptxas serialize them all.
// The other team fills that gap. Only without forced local blocks does a block compete whose last window is hidden.
template <int kDim>
__device__ inline void TakeFine(const Walk& walk, const Ring<kDim>& ring, uint64_t queries, int64_t position,
                                int all_see, int part, const float (&log_sums)[kQuads][kHeads], const ChoicePlan& plan,
                                const int64_t (&items)[kQuads], const BlockValues& values) {
  constexpr float kScale = ExponentScale<kDim>();
  static_assert(kPageSteps % 2 == 0);
  const int row = threadIdx.x % 32 / 4;
  PageValues page_values[kQuads];
  int visible[kQuads];
  float scores[2][kQuads * kHeads / 2][4];
#pragma unroll
  for (int k = 0; k < kQuads; ++k) visible[k] = VisibleWindows(position + 4 * k, kK1Stride);

  int step = walk.coarse_steps, page = walk.first_page + part;
  for (; step < walk.steps; page += kParts) {
    ring.WaitFull(step);
    StartScores<kDim>(ring.operand(step), queries, scores[0]);
#pragma unroll
    for (int j = 0; j < kPageSteps; ++j, ++step) {
      if (j + 1 < kPageSteps) {
        ring.WaitFull(step + 1);
        StartScores<kDim>(ring.operand(step + 1), queries, scores[(j + 1) % 2]);
        WgmmaWait<1>();
      } else {
        WgmmaWait<0>();
      }
      PinRegisters(scores[j % 2]);
      ring.SignEmpty(step);
      const int window = page * static_cast<int>(kPageK1) + j * kPartRows;
#pragma unroll
      for (int k = 0; k < kQuads; ++k) {
        float low, high;
        SumHeads<kHeads>(scores[j % 2] + k * kHeads / 2, kScale, log_sums[k], low, high);
        if (window + kPartRows > all_see) {
          if (window + row >= visible[k]) low = 0;
          if (window + row + 8 >= visible[k]) high = 0;
        }
        page_values[k].Take(j, low, high);
      }
    }
#pragma unroll
    for (int k = 0; k < kQuads; ++k) page_values[k].Write(plan, page, items[k], values);
  }
}

template <int kDim>
__global__ void __launch_bounds__(kThreads, 1)
    SelectTilesKernel(SparseParams params, ConstRows q, TileRange range, BlockValues values) {
#if !defined(__CUDA_ARCH__) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
  using Layout = Shared<kDim>;
  extern __shared__ __align__(1024) std::byte shared[];

  const int head = blockIdx.y, group = static_cast<int>(params.heads / params.kv.kv_heads);
  const TokenTile of_tokens(params, range, blockIdx.x);
  if (!of_tokens.exists()) return;
  const SparseSequence& seq = of_tokens.seq;
  const int64_t first = of_tokens.first;

  // The same in all lanes, and the compiler is to know.
  const int team = __shfl_sync(kAllLanes, static_cast<int>(threadIdx.x) / kTeamThreads, 0),
            part = threadIdx.x / 32 % kParts;
  const int64_t team_first = first + team * kTeamTokens;
  const ChoicePlan plan(params, first);
  if (!plan.contested()) return;
  const bool producer = team == kTeams;

  const Walk walk(params, seq, plan, first);
  const Ring<kDim> ring(shared);
  const uint32_t queries_at = SharedAddress(shared) + team * Layout::Queries::kBytes;
  if (threadIdx.x == 0) ring.Init();
  if (!producer) {
    LoadQueries<kDim, kHeads>(seq, q, team_first, head, group, threadIdx.x % kTeamThreads, kTeamThreads, queries_at);
    CommitCopies();
    WaitCopies<0>();
    FenceAsyncProxy();
  }
  __syncthreads();
  if (producer) {
    ReleaseRegisters<40>();
    Produce<kDim>(params, seq, head, walk, ring);
    return;
  }

  ClaimRegisters<232>();
  const uint64_t queries = SwizzledOperand(queries_at);
  const int64_t position = team_first + threadIdx.x % 4;  // of this thread's token of the first quad
  float log_sums[kQuads][kHeads];
  {
    LogSums<kHeads> sums[kQuads];
    TakeCoarse<kDim>(walk, ring, queries, position, VisibleWindows(team_first, kK2Stride), sums);
    auto* partial = reinterpret_cast<LogSum*>(shared + Layout::kSums + team * Layout::kTeamSums);
    ShareLogSums<kParts>(sums, partial, part, 0, group, 1 + team, log_sums);
  }
  int64_t items[kQuads];
#pragma unroll
  for (int k = 0; k < kQuads; ++k) {
    items[k] = of_tokens.Item(params, range, team * kTeamTokens + 4 * k + threadIdx.x % 4, head);
  }
  TakeFine<kDim>(walk, ring, queries, position, VisibleWindows(team_first, kK1Stride), part, log_sums, plan, items,
                 values);
#endif
}

template <int kDim>
cudaError_t Launch(const SparseParams& params, ConstRows q, const TileRange& range, const BlockValues& values,
                   cudaStream_t stream) {
  constexpr int kBytes = Shared<kDim>::kBytes;
  const auto kernel = SelectTilesKernel<kDim>;
  const cudaError_t error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes);
  if (error != cudaSuccess) return error;
  const dim3 grid(static_cast<unsigned>(range.end - range.begin), static_cast<unsigned>(params.kv.kv_heads));
  kernel<<<grid, kThreads, kBytes, stream>>>(params, q, range, values);
  return cudaGetLastError();
}

}  // namespace

bool HasSelectTilesSm90a(const SparseParams& params) {
  return params.arch == Arch::kSm90a && params.heads / params.kv.kv_heads > kHeads / 2 && params.kv.head_dim >= 64;
}

cudaError_t SelectTilesSm90a(const SparseParams& params, ConstRows q, const TileRange& range, const BlockValues& values,
                             cudaStream_t stream) {
  return params.kv.head_dim == 64 ? Launch<64>(params, q, range, values, stream)
                                  : Launch<128>(params, q, range, values, stream);
}

}  // namespace salamander::kernels::cuda
