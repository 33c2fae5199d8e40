// Inside of stage 2 and dense attention: what attend.cu hands to the kernels.
//
// Both walk blocks of 64 tokens; they differ in which blocks a token has, so every kernel does both. A warp's 16 rows
// are the query heads of one token that share a key/value head (with fewer, rows stay idle): all of them have the same
// blocks and see the same keys, so that choosing and masking never part the lanes of a warp.
#ifndef SALAMANDER_KERNELS_CUDA_ATTEND_H_
#define SALAMANDER_KERNELS_CUDA_ATTEND_H_

#include "kernels/cuda/launch.h"

namespace salamander::kernels::cuda {

// Query heads of one key/value head, at most.
inline constexpr int kMaxGroup = 16;

struct AttendTask {
  KvLayout kv;
  int group = 0;  // query heads of a key/value head
  const SparseSequence* sequences = nullptr;
  ConstRows q;
  Rows out;
  const int32_t* blocks = nullptr;  // null: every token has all blocks up to its own
  int top_blocks = 0;
  float scale = 0;  // of scores, to exponents of 2
};

// Prefill: tiles of tokens that share what they load. One grid of (tiles of max_rows, kv_heads, count).
cudaError_t AttendTiles(const AttendTask& task, int64_t count, int64_t max_rows, cudaStream_t stream);
// The same with warpgroup products; head sizes 64 and 128.
cudaError_t AttendTilesSm90a(const AttendTask& task, int64_t count, int64_t max_rows, cudaStream_t stream);

// Decode, one row a sequence: its blocks are split over `splits` thread blocks, a second kernel combines their results.
inline constexpr int kMaxSplits = 64;
cudaError_t AttendTokens(const AttendTask& task, int64_t count, int splits, void* workspace, cudaStream_t stream);
int64_t AttendTokensWorkspaceBytes(int64_t count, const KvLayout& kv, int splits);

}  // namespace salamander::kernels::cuda

#endif  // SALAMANDER_KERNELS_CUDA_ATTEND_H_
