// The kernels of stage 1, which SelectBlocks of launch.h puts together: some form of scoring gives each token the
// values of its competing blocks, in the workspace; choosing takes the best. Tiles of a prompt's tokens and single
// tokens have each their own forms of both.
#ifndef SALAMANDER_KERNELS_CUDA_SELECT_H_
#define SALAMANDER_KERNELS_CUDA_SELECT_H_

#include <cstdint>

#include "kernels/cuda/launch.h"

namespace salamander::kernels::cuda {

// Query heads a key/value head may have.
inline constexpr int64_t kSelectMaxGroup = 16;

// Tokens that are scored at a time: tiles of `tokens` aligned positions. Each sequence has `per_sequence` of them, as
// many as max_rows rows may touch, and all sequences' tiles are counted through.
struct TileRange {
  int tokens = 1;
  int per_sequence = 1;
  int begin = 0, end = 0;
};

// Values of competing blocks, for item i = (tile - range.begin) · tokens · kv_heads + token · kv_heads + head. A page
// of 16 blocks has four float4: number b holds blocks b, 4 + b, 8 + b and 12 + b, or -1 where one does not compete. The
// first block of a page lacks its first window, the last one of the page before.
struct PageEnd {
  float most;  // of the values
  float last;  // score of the page's last window
};
struct BlockValues {
  float4* values = nullptr;  // [i][page][4]
  PageEnd* ends = nullptr;   // [i][page]
  int64_t pages = 0;

  static constexpr int64_t kPageBytes = kPageBlocks * sizeof(float) + sizeof(PageEnd);
};

// Tiles of 8 tokens, mma.sync.
inline constexpr int kSelectTileTokens = 8, kSelectTileOccupancy = 3;
cudaError_t SelectTiles(const SparseParams& params, ConstRows q, const TileRange& range, const BlockValues& values,
                        cudaStream_t stream);

// Tiles of 16 tokens, wgmma; for groups that fill them.
inline constexpr int kSelectTileTokensSm90a = 16;
bool HasSelectTilesSm90a(const SparseParams& params);
cudaError_t SelectTilesSm90a(const SparseParams& params, ConstRows q, const TileRange& range, const BlockValues& values,
                             cudaStream_t stream);

// Single tokens, max_rows == 1: each is spread over the whole device. `workspace` has SelectTokensWorkspaceBytes.
int64_t SelectTokensWorkspaceBytes(const SparseParams& params);
cudaError_t SelectTokens(const SparseParams& params, ConstRows q, int32_t* blocks, void* workspace,
                         cudaStream_t stream);

// Values of single tokens, for item sequence · kv_heads + head. Unit u is blocks 4u … 4u+3, of 16 windows.
inline constexpr int kUnitBlocks = 4, kUnitWindows = 16, kPageUnits = static_cast<int>(kPageBlocks) / kUnitBlocks;
struct TokenValues {
  float4* blocks = nullptr;  // [item][unit]; -1 for one that does not compete. The unit's first lacks its first window,
  float* last = nullptr;     // [item][unit]: the last one of the unit before
  int64_t units = 0;
};
cudaError_t ChooseTokens(const SparseParams& params, const TokenValues& values, int32_t* blocks, cudaStream_t stream);

// Of tiles.
cudaError_t ChooseBlocks(const SparseParams& params, const TileRange& range, const BlockValues& values, int32_t* blocks,
                         cudaStream_t stream);

}  // namespace salamander::kernels::cuda

#endif  // SALAMANDER_KERNELS_CUDA_SELECT_H_
