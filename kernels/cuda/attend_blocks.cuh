// Which blocks a tile of tokens attends to, and how a block lies in shared memory.
#ifndef SALAMANDER_KERNELS_CUDA_ATTEND_BLOCKS_CUH_
#define SALAMANDER_KERNELS_CUDA_ATTEND_BLOCKS_CUH_

#include <cuda_bf16.h>

#include <cstddef>
#include <cstdint>

#include "kernels/cuda/attend.h"
#include "kernels/cuda/device/mma.cuh"

namespace salamander::kernels::cuda {

inline constexpr int kBlock = static_cast<int>(kBlockTokens);

// Walks the union of the blocks of up to 32 tokens in ascending order: a merge of ascending lists, one a lane.
// Neighbours share most of their blocks, so a block is loaded once for all that chose it. All lanes of a warp call
// together.
class BlockUnion {
 public:
  // Lane i speaks for token i: `list` has `size` blocks in ascending order, fewer if padded by -1. A null list has the
  // blocks 0 … size - 1. Lanes without a token: size 0.
  __device__ BlockUnion(const int32_t* list, int size) : list_(list), size_(size), head_(At(0)), next_(At(1)) {}

  // The lowest block not walked yet, or -1; bit i of *tokens says whether token i has it.
  __device__ int Next(unsigned* tokens) {
    const unsigned block = __reduce_min_sync(kAllLanes, head_);
    const bool chosen = head_ == block;
    *tokens = __ballot_sync(kAllLanes, chosen);
    if (chosen) {
      head_ = next_;
      next_ = At(++at_ + 1);  // ahead of its use: the load takes longer than a step
    }
    return static_cast<int>(block);
  }

 private:
  // Without sign the padding is past every block.
  __device__ unsigned At(int i) const {
    if (i >= size_) return static_cast<unsigned>(-1);
    return list_ == nullptr ? static_cast<unsigned>(i) : static_cast<unsigned>(__ldg(list_ + i));
  }

  const int32_t* list_;
  int size_;
  int at_ = 0;
  unsigned head_, next_;
};

// The blocks of lane i's token, for tokens [first, first + count) of a sequence.
__device__ inline BlockUnion TileBlocks(const AttendTask& task, const SparseSequence& sequence, int64_t first,
                                        int count, int kv_head) {
  const int lane = threadIdx.x % 32;
  if (task.blocks == nullptr) {
    const int own = static_cast<int>((sequence.position + first + lane) / kBlock);
    return {nullptr, lane < count ? own + 1 : 0};
  }
  const int64_t row = sequence.row + first + lane;
  return {task.blocks + (row * task.kv.kv_heads + kv_head) * task.top_blocks, lane < count ? task.top_blocks : 0};
}

// Keys of a block that the token at `position` sees; 0 or less: none.
__device__ inline int VisibleKeys(int64_t position, int block) {
  const int64_t keys = position + 1 - static_cast<int64_t>(block) * kBlock;
  return keys < kBlock ? static_cast<int>(keys) : kBlock;
}

// Where the keys of a block begin; its values follow.
__device__ inline const std::byte* BlockData(const KvLayout& kv, std::byte* const* pages, int block, int kv_head) {
  return pages[block / kPageBlocks] + kv.keys(block % kPageBlocks, kv_head);
}

// A block in shared memory: 128 rows, 64 of keys and 64 of values, in panels of 64 columns (128 bytes, or all of a
// smaller head). Swizzled rows of 128 bytes are also what warpgroup products read.
template <int kDim>
struct BlockTile {
  static constexpr int kRows = 2 * kBlock;
  static constexpr int kPieces = kDim / 8;  // of 16 bytes, in a row
  static constexpr int kPanelPieces = kPieces < 8 ? kPieces : 8;
  static constexpr int kPanelBytes = kRows * kPanelPieces * 16;
  static constexpr int kBytes = kRows * kDim * 2;

  __device__ static int Offset(int row, int piece) {
    return piece / kPanelPieces * kPanelBytes + Swizzle<kPanelPieces * 16>(row, piece % kPanelPieces);
  }

  // This thread's part, one of kThreads, of the copy of rows [first, first + kCopied), all keys or all values or both,
  // to a tile at `shared`. Tokens from `keys` on do not exist: zero, so that their weight of zero stays zero whatever
  // memory holds there.
  template <int kThreads, int kCopied>
  __device__ static void Copy(uint32_t shared, const std::byte* block, int first, int keys, int thread) {
    constexpr int kStep = kThreads / kPieces;           // rows at once
    constexpr int kPeriod = kStep < 8 ? 8 / kStep : 1;  // steps until the swizzle is the same again
    constexpr int kStride = kStep * kPanelPieces * 16;
    static_assert(kBlock % kStep == 0 && kCopied % (kStep * kPeriod) == 0);
    const int row = first + thread / kPieces, piece = thread % kPieces;
    const int keys_here = keys - row % kBlock;
    const std::byte* from = block + (row * kPieces + piece) * 16;
    uint32_t to[kPeriod];
#pragma unroll
    for (int i = 0; i < kPeriod; ++i) to[i] = shared + Offset(row + i * kStep, piece) - i * kStride;
#pragma unroll
    for (int i = 0; i < kCopied / kStep; ++i) {
      CopyAsync16(to[i % kPeriod] + i * kStride, from + i * kThreads * 16, i * kStep % kBlock < keys_here ? 16 : 0);
    }
  }
};

}  // namespace salamander::kernels::cuda

#endif  // SALAMANDER_KERNELS_CUDA_ATTEND_BLOCKS_CUH_
