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
constexpr int kTokens = kTeams * kTeamTokens;
constexpr int kConsumers = kTeams * kTeamThreads;
constexpr int kThreads = kConsumers + kTeamThreads;
constexpr int kHeads = kSelectMaxGroup;
constexpr int kQuads = 2;                         // of tokens a thread has a part in
constexpr int kParts = 4;                         // warps of a team, each with its own windows
constexpr int kPartRows = kTileWindows / kParts;  // of a tile
constexpr int kPageSteps = kPageK1 / kPartRows;   // tiles that a page of each part takes
constexpr int kStages = 6;
static_assert(kPartRows == kPageK2);

template <int kDim>
struct Shared {
  using Queries = SharedTile<kDim, kTeamTokens * kHeads>;
  using Tile = SharedTile<kDim, kTileWindows>;
  static constexpr int kTiles = kTeams * Queries::kBytes, kBarriers = kTiles + kStages * Tile::kBytes,
                       kTeam = kBarriers + 2 * kStages * 8;
  __host__ __device__ static int TeamBytes(int places) { return TeamMemory<kParts>::template Bytes<kHeads>(places); }
  static int Bytes(int places) { return kTeam + kTeams * TeamBytes(places); }
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
  constexpr int kInFlight = 3;  // tiles
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

// Block values from K1, to the lists of the best. The product of the next tile is under way while this one's scores are
// taken, but none from one group of pages to the next: a product under way from one round of a loop to the next makes
// ptxas serialize them all. The other team fills that gap. Only without forced local blocks does a block compete whose
// last window is hidden.
template <int kDim>
__device__ inline void TakeFine(const Walk& walk, const Ring<kDim>& ring, uint64_t queries, int64_t position,
                                int all_see, int part, int barrier, const float (&log_sums)[kQuads][kHeads],
                                BlockChooser<kParts, kQuads>& chooser) {
  constexpr float kScale = ExponentScale<kDim>();
  static_assert(kPageSteps % 2 == 0);
  const int row = threadIdx.x % 32 / 4;
  int visible[kQuads];
  float scores[2][kQuads * kHeads / 2][4];
#pragma unroll
  for (int k = 0; k < kQuads; ++k) visible[k] = VisibleWindows(position + 4 * k, kK1Stride);

  int step = walk.coarse_steps, page = walk.first_page + part;
  for (; step < walk.steps; page += kParts) {
    ring.WaitFull(step);
    StartScores<kDim>(ring.operand(step), queries, scores[0]);
    if (step > walk.coarse_steps) chooser.EndPages(page - kParts, barrier);  // in the product's time
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
        chooser.Take(k, low, high, window / 4);
      }
    }
  }
  chooser.EndPages(page - kParts, barrier);
}

template <int kDim>
__global__ void __launch_bounds__(kThreads, 1) SelectTilesKernel(SparseParams params, ConstRows q, int32_t* blocks) {
#if !defined(__CUDA_ARCH__) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
  using Layout = Shared<kDim>;
  extern __shared__ __align__(1024) std::byte shared[];

  // Later tiles see more, so they go first.
  const int64_t index = gridDim.x - 1 - blockIdx.x;
  const int head = blockIdx.y, group = static_cast<int>(params.heads / params.kv.kv_heads);
  const SparseSequence seq = params.sequences[blockIdx.z];
  const int64_t first = (seq.position / kTokens + index) * kTokens;
  if (seq.rows == 0 || first >= seq.position + seq.rows) return;

  // The same in all lanes, and the compiler is to know.
  const int team = __shfl_sync(kAllLanes, static_cast<int>(threadIdx.x) / kTeamThreads, 0),
            part = threadIdx.x / 32 % kParts;
  const int64_t team_first = first + team * kTeamTokens;
  const ChoicePlan plan(params, first);
  const auto memory = TeamMemory<kParts>::At<kHeads>(
      shared + Layout::kTeam + min(team, kTeams - 1) * Layout::TeamBytes(plan.places), plan.places);
  const bool producer = team == kTeams;
  if (!plan.contested()) {
    if (!producer) WriteChoices(params, seq, team_first, head, plan, memory, blocks);
    return;
  }

  const Walk walk(params, seq, plan, first);
  const Ring<kDim> ring(shared);
  const uint32_t queries_at = SharedAddress(shared) + team * Layout::Queries::kBytes;
  if (threadIdx.x == 0) ring.Init();
  if (!producer) {
    LoadQueries<kDim, kHeads>(seq, q, team_first, head, group, threadIdx.x % kTeamThreads, kTeamThreads, queries_at);
    ClearLists(memory, seq, team_first);
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
  const int barrier = 1 + team;
  const uint64_t queries = SwizzledOperand(queries_at);
  const int64_t position = team_first + threadIdx.x % 4;  // of this thread's token of the first quad
  float log_sums[kQuads][kHeads];
  {
    LogSums<kHeads> sums[kQuads];
    TakeCoarse<kDim>(walk, ring, queries, position, VisibleWindows(team_first, kK2Stride), sums);
    ShareLogSums(sums, memory, part, 0, group, barrier, log_sums);
  }
  BlockChooser<kParts, kQuads> chooser(plan, memory, part, 0);
  TakeFine<kDim>(walk, ring, queries, position, VisibleWindows(team_first, kK1Stride), part, barrier, log_sums,
                 chooser);
  BarrierSync(barrier, kTeamThreads);
  WriteChoices(params, seq, team_first, head, plan, memory, blocks);
#endif
}

template <int kDim>
int SharedBytes(const SparseParams& params) {
  return Shared<kDim>::Bytes(static_cast<int>(std::max<int64_t>(0, CompetingPlaces(params))));
}

template <int kDim>
cudaError_t Launch(const SparseParams& params, ConstRows q, int32_t* blocks, cudaStream_t stream) {
  const int bytes = SharedBytes<kDim>(params);
  const auto kernel = SelectTilesKernel<kDim>;
  const cudaError_t error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
  if (error != cudaSuccess) return error;
  const dim3 grid(static_cast<unsigned>((params.max_rows + 2 * kTokens - 2) / kTokens),
                  static_cast<unsigned>(params.kv.kv_heads), static_cast<unsigned>(params.count));
  kernel<<<grid, kThreads, bytes, stream>>>(params, q, blocks);
  return cudaGetLastError();
}

}  // namespace

bool HasSelectTilesSm90a(const SparseParams& params) {
  constexpr int kSharedLimit = 227 * 1024;
  if (params.arch != Arch::kSm90a || params.heads / params.kv.kv_heads <= kHeads / 2) return false;
  return (params.kv.head_dim == 64 && SharedBytes<64>(params) <= kSharedLimit) ||
         (params.kv.head_dim == 128 && SharedBytes<128>(params) <= kSharedLimit);
}

cudaError_t SelectTilesSm90a(const SparseParams& params, ConstRows q, int32_t* blocks, cudaStream_t stream) {
  return params.kv.head_dim == 64 ? Launch<64>(params, q, blocks, stream) : Launch<128>(params, q, blocks, stream);
}

}  // namespace salamander::kernels::cuda
