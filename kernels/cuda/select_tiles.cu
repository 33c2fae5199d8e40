// Stage 1 for tiles of tokens with mma.sync: a team is a thread block, several of them on a multiprocessor overlap
// products with exponentials. A warp scores 32 windows for 4 tokens.
#include "kernels/cuda/select.h"
#include "kernels/cuda/select_tile.cuh"

namespace salamander::kernels::cuda {
namespace {

static_assert(kSelectTileTokens == kTeamTokens);
constexpr int kParts = 2;                             // warps that share tokens, each with its own windows
constexpr int kPartRows = kTileWindows / kParts;      // of a tile
constexpr int kPageSteps = kPageK1 / kPartRows;       // tiles that a page of each part takes
constexpr int kCoarsePages = kTileWindows / kPageK2;  // whose K2 windows fill a tile
constexpr int kStages = 2;

template <int kDim, int kHeads>
struct Shared {
  using Queries = SharedTile<kDim, kTeamTokens * kHeads>;
  using Tile = SharedTile<kDim, kTileWindows>;
  static constexpr int kQueries = 0, kTiles = Queries::kBytes, kSums = kTiles + kStages * Tile::kBytes,
                       kBytes = kSums + kParts * kTeamTokens * kHeads * static_cast<int>(sizeof(LogSum));
};

// Scores of a part's 32 windows times a quad's tokens.
template <int kDim, int kHeads>
__device__ inline void Score(uint32_t queries, uint32_t tile, int part, int quad, float (&scores)[2][kHeads / 2][4]) {
  using Layout = Shared<kDim, kHeads>;
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int i = 0; i < 2; ++i) {
#pragma unroll
    for (int n = 0; n < kHeads / 2; ++n) {
#pragma unroll
      for (int c = 0; c < 4; ++c) scores[i][n][c] = 0;
    }
  }
#pragma unroll
  for (int k = 0; k < kDim / 16; ++k) {
    uint32_t a[2][4];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int row = part * kPartRows + i * 16 + lane % 16;
      LoadMatrix4(a[i], tile + Layout::Tile::Offset(row, 2 * k + lane / 16));
    }
#pragma unroll
    for (int n = 0; n < kHeads / 2; n += 2) {
      // Two times eight columns, each with 16 dimensions.
      uint32_t b[4];
      const int column = quad * 4 * kHeads + (n + lane / 16) * 8 + lane % 8;
      LoadMatrix4(b, queries + Layout::Queries::Offset(column, 2 * k + lane / 8 % 2));
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        MmaBf16(scores[i][n], a[i], b[0], b[1]);
        MmaBf16(scores[i][n + 1], a[i], b[2], b[3]);
      }
    }
  }
}

template <int kDim, int kHeads>
__global__ void __launch_bounds__(kTeamThreads, kSelectTileOccupancy)
    SelectTilesKernel(SparseParams params, ConstRows q, TileRange range, BlockValues values) {
  using Layout = Shared<kDim, kHeads>;
  extern __shared__ __align__(1024) std::byte shared[];
  constexpr int kBarrier = 0;
  constexpr float kScale = ExponentScale<kDim>();

  const int head = blockIdx.y, group = static_cast<int>(params.heads / params.kv.kv_heads);
  const TokenTile of_tokens(params, range, blockIdx.x);
  if (!of_tokens.exists()) return;
  const SparseSequence& seq = of_tokens.seq;
  const int64_t first = of_tokens.first;
  const ChoicePlan plan(params, first);
  if (!plan.contested()) return;

  const int lane = threadIdx.x % 32, part = threadIdx.x / 32 % kParts, quad = threadIdx.x / 32 / kParts;
  const int64_t position = first + 4 * quad + lane % 4;  // of this thread's token
  const uint32_t queries = SharedAddress(shared) + Layout::kQueries, tiles = SharedAddress(shared) + Layout::kTiles;
  const int64_t k1 = params.kv.k1(head, 0), k2 = params.kv.k2(head, 0);

  // Steps: tiles of K2, then of K1 for the windows of competing blocks.
  const int coarse_windows = VisibleWindows(min(first + kTeamTokens, seq.position + seq.rows) - 1, kK2Stride);
  const int coarse_pages = (coarse_windows + kPageK2 - 1) / kPageK2;
  const int coarse_steps = (coarse_pages + kCoarsePages - 1) / kCoarsePages;
  const int first_page = max(4 * plan.begin - 1, 0) / kPageK1, end_page = (plan.end - 1) / kPageBlocks + 1;
  const int fine_steps = (end_page - first_page + kParts - 1) / kParts * kPageSteps;
  auto tile = [&](int step) { return tiles + step % kStages * Layout::Tile::kBytes; };
  auto load = [&](int step) {
    const int fine = step - coarse_steps;
    if (fine < 0) {
      LoadTier<kDim, kPageK2>(seq.pages, k2, step * kCoarsePages, coarse_pages, 0, threadIdx.x, kTeamThreads,
                              tile(step));
    } else if (fine < fine_steps) {
      LoadTier<kDim, kPartRows>(seq.pages, k1, first_page + fine / kPageSteps * kParts, end_page,
                                fine % kPageSteps * kPartRows, threadIdx.x, kTeamThreads, tile(step));
    }
    CommitCopies();
  };
  // Waits for the tile of `step` and starts the next one, where the one before was.
  auto advance = [&](int step) {
    WaitCopies<0>();
    __syncthreads();
    load(step + 1);
  };

  LoadQueries<kDim, kHeads>(seq, q, first, head, group, threadIdx.x, kTeamThreads, queries);
  load(0);

  float scores[2][kHeads / 2][4], log_sums[1][kHeads];
  int step = 0;
  {
    LogSums<kHeads> sums[1];
    const int all_see = VisibleWindows(first, kK2Stride), visible = VisibleWindows(position, kK2Stride);
    for (; step < coarse_steps; ++step) {
      advance(step);
      Score<kDim, kHeads>(queries, tile(step), part, quad, scores);
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const int window = step * kTileWindows + part * kPartRows + i * 16;
        if (window + 16 > all_see) Hide<kHeads>(window, visible, scores[i]);
        sums[0].Add(scores[i], kScale);
      }
    }
    ShareLogSums<kParts>(sums, reinterpret_cast<LogSum*>(shared + Layout::kSums), part, quad, group, kBarrier,
                         log_sums);
  }

  PageValues page_values;
  const int64_t item = of_tokens.Item(params, range, 4 * quad + lane % 4, head);
  const int all_see = VisibleWindows(first, kK1Stride), visible = VisibleWindows(position, kK1Stride);
  for (int page = first_page + part; step < coarse_steps + fine_steps; page += kParts) {
#pragma unroll
    for (int j = 0; j < kPageSteps; ++j, ++step) {
      advance(step);
      Score<kDim, kHeads>(queries, tile(step), part, quad, scores);
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const int window = page * kPageK1 + j * kPartRows + i * 16;
        float low, high;
        SumHeads<kHeads>(scores[i], kScale, log_sums[0], low, high);
        // Only without forced local blocks does a block compete whose last window is hidden.
        if (window + 16 > all_see) {
          if (window + lane / 4 >= visible) low = 0;
          if (window + lane / 4 + 8 >= visible) high = 0;
        }
        page_values.Take(2 * j + i, low, high);
      }
    }
    page_values.Write(plan, page, item, values);
  }
}

template <int kDim, int kHeads>
cudaError_t Launch(const SparseParams& params, ConstRows q, const TileRange& range, const BlockValues& values,
                   cudaStream_t stream) {
  constexpr int kBytes = Shared<kDim, kHeads>::kBytes;
  const auto kernel = SelectTilesKernel<kDim, kHeads>;
  const cudaError_t error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes);
  if (error != cudaSuccess) return error;
  const dim3 grid(static_cast<unsigned>(range.end - range.begin), static_cast<unsigned>(params.kv.kv_heads));
  kernel<<<grid, kTeamThreads, kBytes, stream>>>(params, q, range, values);
  return cudaGetLastError();
}

template <int kDim>
cudaError_t LaunchGroup(const SparseParams& params, ConstRows q, const TileRange& range, const BlockValues& values,
                        cudaStream_t stream) {
  const int64_t group = params.heads / params.kv.kv_heads;
  if (group <= 4) return Launch<kDim, 4>(params, q, range, values, stream);
  if (group <= 8) return Launch<kDim, 8>(params, q, range, values, stream);
  return Launch<kDim, kSelectMaxGroup>(params, q, range, values, stream);
}

}  // namespace

cudaError_t SelectTiles(const SparseParams& params, ConstRows q, const TileRange& range, const BlockValues& values,
                        cudaStream_t stream) {
  switch (params.kv.head_dim) {
    case 32:
      return LaunchGroup<32>(params, q, range, values, stream);
    case 64:
      return LaunchGroup<64>(params, q, range, values, stream);
    case 128:
      return LaunchGroup<128>(params, q, range, values, stream);
    default:
      return cudaErrorInvalidValue;
  }
}

}  // namespace salamander::kernels::cuda
