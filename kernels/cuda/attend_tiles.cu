// Stage 2 and dense attention of many tokens, with products of single warps (sm_80 and later).
//
// A thread block has a tile of neighbouring tokens, one a warp, and walks the union of their blocks: loads are shared,
// and a warp sits out the blocks that its token did not choose, so no product is wasted on masks.
#include "kernels/cuda/attend.h"
#include "kernels/cuda/attend_blocks.cuh"
#include "kernels/cuda/attend_rows.cuh"

namespace salamander::kernels::cuda {
namespace {

// As many warps as have room for queries, scores and sums in registers: the more tokens share a block, the less is
// loaded.
constexpr int kTileTokens = 8;
constexpr int kThreads = kTileTokens * 32;
// One being used, two under way; fits in the 99 KiB that every card has.
constexpr int kStages = 3;

template <int kDim>
__global__ void __launch_bounds__(kThreads, 1) AttendTilesKernel(const AttendTask task) {
  using Tile = BlockTile<kDim>;
  extern __shared__ __align__(128) std::byte shared[];
  const SparseSequence sequence = task.sequences[blockIdx.z];
  // The last tiles see most in dense attention, so they start first.
  const int64_t first = static_cast<int64_t>(gridDim.x - 1 - blockIdx.x) * kTileTokens;
  if (first >= sequence.rows) return;
  const int tokens = static_cast<int>(min(sequence.rows - first, static_cast<int64_t>(kTileTokens)));
  const int kv_head = blockIdx.y, warp = threadIdx.x / 32;
  const int64_t position = sequence.position + first + warp, row = sequence.row + first + warp;
  const int64_t head = static_cast<int64_t>(kv_head) * task.group * kDim;

  // Every warp walks for itself and so knows the next block without being told.
  BlockUnion walk = TileBlocks(task, sequence, first, tokens, kv_head);
  const uint32_t stages = SharedAddress(shared);
  // Loads the next block, if there is one.
  auto load = [&](int stage, unsigned* chosen) {
    const int block = walk.Next(chosen);
    if (block >= 0) {
      Tile::template Copy<kThreads, Tile::kRows>(
          stages + stage * Tile::kBytes, BlockData(task.kv, sequence.pages, block, kv_head), 0,
          VisibleKeys(sequence.position + sequence.rows - 1, block), threadIdx.x);
    }
    CommitCopies();
    return block;
  };

  unsigned chosen, next_chosen, last_chosen;
  int block = load(0, &chosen), next = load(1, &next_chosen);
  AttendRows<kDim> rows;
  rows.Start(warp < tokens ? task.q.data + row * task.q.stride + head : nullptr, task.group);
  for (int stage = 0; block >= 0; stage = stage == kStages - 1 ? 0 : stage + 1) {
    WaitCopies<1>();
    __syncthreads();  // this block is there, and all are done with the one before
    const int last = load(stage == 0 ? kStages - 1 : stage - 1, &last_chosen);
    const int keys = VisibleKeys(position, block);
    if ((chosen >> warp & 1) != 0 && keys > 0) {
      rows.template Attend<kBlock>(stages + stage * Tile::kBytes, 0, keys, task.scale);
    }
    block = next;
    chosen = next_chosen;
    next = last;
    next_chosen = last_chosen;
  }
  if (warp < tokens) rows.Finish(task.out.data + row * task.out.stride + head, task.group);
}

template <int kDim>
cudaError_t Launch(const AttendTask& task, int64_t count, int64_t max_rows, cudaStream_t stream) {
  constexpr int kShared = kStages * BlockTile<kDim>::kBytes;
  const cudaError_t error =
      cudaFuncSetAttribute(AttendTilesKernel<kDim>, cudaFuncAttributeMaxDynamicSharedMemorySize, kShared);
  if (error != cudaSuccess) return error;
  const dim3 grid(static_cast<unsigned>((max_rows + kTileTokens - 1) / kTileTokens),
                  static_cast<unsigned>(task.kv.kv_heads), static_cast<unsigned>(count));
  AttendTilesKernel<kDim><<<grid, kThreads, kShared, stream>>>(task);
  return cudaGetLastError();
}

}  // namespace

cudaError_t AttendTiles(const AttendTask& task, int64_t count, int64_t max_rows, cudaStream_t stream) {
  switch (task.kv.head_dim) {
    case 32:
      return Launch<32>(task, count, max_rows, stream);
    case 64:
      return Launch<64>(task, count, max_rows, stream);
    case 128:
      return Launch<128>(task, count, max_rows, stream);
    default:
      return cudaErrorInvalidValue;
  }
}

}  // namespace salamander::kernels::cuda
