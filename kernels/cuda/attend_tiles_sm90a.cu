// Stage 2 and dense attention of many tokens, with products of warpgroups (sm_90a).
//
// As attend_tiles.cu, but four tokens with their 16 rows each make the 64 rows of a warpgroup product. What a token did
// not choose gets weights of zero there; neighbours choose nearly the same, and where they do not, loads take longer
// than the products that are wasted. A warpgroup sits out blocks that none of its four tokens chose.
//
// One warpgroup loads (cp.async: pages lie anywhere, so there is no tensor map), three compute; while some weigh their
// scores, others keep the tensor cores busy. Tiles that run at the same time walk upwards together, so that a block
// which tokens of several tiles chose is mostly found in the L2 cache.
#include "kernels/cuda/attend.h"
#include "kernels/cuda/attend_blocks.cuh"
#include "kernels/cuda/attend_rows.cuh"
#include "kernels/cuda/device/mbarrier.cuh"
#include "kernels/cuda/device/wgmma.cuh"

namespace salamander::kernels::cuda {
namespace {

constexpr int kGroupTokens = 4;
constexpr int kGroups = 3;  // warpgroups that compute
constexpr int kTileTokens = kGroups * kGroupTokens;
constexpr int kGroupThreads = 128;
constexpr int kThreads = (kGroups + 1) * kGroupThreads;
// All 64 Ki registers of a multiprocessor.
constexpr int kComputeRegisters = 160, kLoadRegisters = 32;
static_assert(kGroupThreads * (kGroups * kComputeRegisters + kLoadRegisters) == 65536);

constexpr int kStages = 6;  // blocks in shared memory

// Fragments of a warp's queries, 16 columns each, for which registers do not suffice: they wait in shared memory.
template <int kDim>
constexpr int kParked = kDim == 128 ? 3 : 0;

template <int kDim>
struct alignas(1024) Shared {
  std::byte tiles[kStages][BlockTile<kDim>::kBytes];
  uint4 parked[kTileTokens][kParked<kDim> == 0 ? 1 : kParked<kDim>][32];
  uint64_t loaded[kStages];    // every loading thread arrives when its part is there, the first once more
  uint64_t released[kStages];  // a computing warp arrives when it is done
  int block[kStages];          // -1: the end
  unsigned tokens[kStages];    // that chose the block
};

template <int kDim>
__device__ void Load(const AttendTask& task, const SparseSequence& sequence, BlockUnion walk, Shared<kDim>* shared) {
  using Tile = BlockTile<kDim>;
  const int thread = threadIdx.x % kGroupThreads, kv_head = blockIdx.y;
  const int last = static_cast<int>(sequence.position + sequence.rows - 1);
  for (int step = 0, block = 0; block >= 0; ++step) {
    const int stage = step % kStages;
    unsigned tokens;
    block = walk.Next(&tokens);
    WaitFor(&shared->released[stage], step / kStages & 1 ^ 1);  // at once in the first round
    if (thread == 0) {
      shared->block[stage] = block;
      shared->tokens[stage] = tokens;
      ArriveAt(&shared->loaded[stage]);
    }
    if (block >= 0) {
      Tile::template Copy<kGroupThreads, Tile::kRows>(SharedAddress(shared->tiles[stage]),
                                                      BlockData(task.kv, sequence.pages, block, kv_head), 0,
                                                      VisibleKeys(last, block), thread);
    }
    ArriveAfterCopies(&shared->loaded[stage]);
  }
  CommitCopies();
  WaitCopies<0>();
}

// One block, by all warps of a warpgroup; `chosen` says whether this warp's token takes part, seeing `keys` of it.
template <int kDim>
__device__ void AttendTile(AttendRows<kDim>& rows, uint32_t tile, bool chosen, int keys, float scale) {
  using Tile = BlockTile<kDim>;
  float scores[kBlock / 8][4];
  FenceAsyncProxy();  // copies are not of the products' proxy
  PinRegisters(rows.q);
  WgmmaFence();
#pragma unroll
  for (int k = 0; k < kDim / 16; ++k) {
    Wgmma<false>(scores, rows.q[k], SwizzledOperand(tile + k / 4 * Tile::kPanelBytes + k % 4 * 32), k > 0);
  }
  WgmmaCommit();
  WgmmaWait<0>();
  PinRegisters(scores);

  uint32_t weights[kBlock / 16][4] = {};
  if (chosen) {
    float factor[2];
    if (rows.Weigh(scores, keys, scale, factor)) rows.ScaleOut(factor);  // after a few blocks maxima rarely rise
    PackWeights(scores, weights);
  }
  PinRegisters(rows.out);
  PinRegisters(weights);
  WgmmaFence();
#pragma unroll
  for (int k = 0; k < kBlock / 16; ++k) {
    Wgmma<true>(rows.out, weights[k], SwizzledOperand(tile + (kBlock + k * 16) * 128, Tile::kPanelBytes), true);
  }
  WgmmaCommit();
  WgmmaWait<0>();
  PinRegisters(rows.out);
}

template <int kDim>
__device__ void Compute(const AttendTask& task, int64_t position, AttendRows<kDim>& rows, Shared<kDim>* shared) {
  constexpr int kKept = kDim / 16 - kParked<kDim>;
  constexpr unsigned kGroupMask = (1 << kGroupTokens) - 1;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  auto& parked = shared->parked[warp];
#pragma unroll
  for (int k = kKept; k < kDim / 16; ++k) {
    parked[k - kKept][lane] = {rows.q[k][0], rows.q[k][1], rows.q[k][2], rows.q[k][3]};
  }
  for (int step = 0;; ++step) {
    const int stage = step % kStages;
    WaitFor(&shared->loaded[stage], step / kStages & 1);
    // By the lane that releases the stage, so that the order of read and next write is the barrier's alone.
    int block = 0;
    unsigned tokens = 0;
    if (lane == 0) {
      block = shared->block[stage];
      tokens = shared->tokens[stage];
    }
    block = __shfl_sync(kAllLanes, block, 0);
    if (block < 0) break;
    tokens = __shfl_sync(kAllLanes, tokens, 0);
    if ((tokens >> warp / kGroupTokens * kGroupTokens & kGroupMask) != 0) {
#pragma unroll
      for (int k = kKept; k < kDim / 16; ++k) {
        const uint4 q = parked[k - kKept][lane];
        rows.q[k][0] = q.x;
        rows.q[k][1] = q.y;
        rows.q[k][2] = q.z;
        rows.q[k][3] = q.w;
      }
      const int keys = VisibleKeys(position, block);
      AttendTile(rows, SharedAddress(shared->tiles[stage]), (tokens >> warp & 1) != 0 && keys > 0, keys, task.scale);
    }
    __syncwarp();
    if (lane == 0) ArriveAt(&shared->released[stage]);
  }
}

template <int kDim>
__global__ void __launch_bounds__(kThreads, 1) AttendTilesSm90aKernel(const AttendTask task) {
#if !defined(__CUDA_ARCH__) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
  extern __shared__ __align__(1024) std::byte memory[];
  auto* shared = reinterpret_cast<Shared<kDim>*>(memory);
  const SparseSequence sequence = task.sequences[blockIdx.z];
  // The last tiles see most in dense attention, so they start first.
  const int64_t first = static_cast<int64_t>(gridDim.x - 1 - blockIdx.x) * kTileTokens;
  if (first >= sequence.rows) return;
  const int tokens = static_cast<int>(min(sequence.rows - first, static_cast<int64_t>(kTileTokens)));
  const int kv_head = blockIdx.y, warp = threadIdx.x / 32;
  if (threadIdx.x == 0) {
    for (int stage = 0; stage < kStages; ++stage) {
      InitBarrier(&shared->loaded[stage], kGroupThreads + 1);
      InitBarrier(&shared->released[stage], kTileTokens);
    }
  }
  __syncthreads();
  if (warp >= kTileTokens) {
    ReleaseRegisters<kLoadRegisters>();
    Load(task, sequence, TileBlocks(task, sequence, first, tokens, kv_head), shared);
    return;
  }
  ClaimRegisters<kComputeRegisters>();
  const int64_t row = sequence.row + first + warp, head = static_cast<int64_t>(kv_head) * task.group * kDim;
  AttendRows<kDim> rows;
  rows.Start(warp < tokens ? task.q.data + row * task.q.stride + head : nullptr, task.group);
  Compute(task, sequence.position + first + warp, rows, shared);
  if (warp < tokens) rows.Finish(task.out.data + row * task.out.stride + head, task.group);
#endif
}

template <int kDim>
cudaError_t Launch(const AttendTask& task, int64_t count, int64_t max_rows, cudaStream_t stream) {
  constexpr int kShared = sizeof(Shared<kDim>);
  const cudaError_t error =
      cudaFuncSetAttribute(AttendTilesSm90aKernel<kDim>, cudaFuncAttributeMaxDynamicSharedMemorySize, kShared);
  if (error != cudaSuccess) return error;
  const dim3 grid(static_cast<unsigned>((max_rows + kTileTokens - 1) / kTileTokens),
                  static_cast<unsigned>(task.kv.kv_heads), static_cast<unsigned>(count));
  AttendTilesSm90aKernel<kDim><<<grid, kThreads, kShared, stream>>>(task);
  return cudaGetLastError();
}

}  // namespace

cudaError_t AttendTilesSm90a(const AttendTask& task, int64_t count, int64_t max_rows, cudaStream_t stream) {
  switch (task.kv.head_dim) {
    case 64:
      return Launch<64>(task, count, max_rows, stream);
    case 128:
      return Launch<128>(task, count, max_rows, stream);
    default:
      return cudaErrorInvalidValue;
  }
}

}  // namespace salamander::kernels::cuda
