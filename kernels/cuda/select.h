// The forms of stage 1 that SelectBlocks of launch.h chooses from.
#ifndef SALAMANDER_KERNELS_CUDA_SELECT_H_
#define SALAMANDER_KERNELS_CUDA_SELECT_H_

#include <cstdint>

#include "kernels/cuda/launch.h"

namespace salamander::kernels::cuda {

// Query heads a key/value head may have.
inline constexpr int64_t kSelectMaxGroup = 16;

// Tiles of 8 tokens, mma.sync.
cudaError_t SelectTiles(const SparseParams& params, ConstRows q, int32_t* blocks, cudaStream_t stream);

// Tiles of 16 tokens, wgmma; for groups that fill them and lists that fit into shared memory.
bool HasSelectTilesSm90a(const SparseParams& params);
cudaError_t SelectTilesSm90a(const SparseParams& params, ConstRows q, int32_t* blocks, cudaStream_t stream);

// Single tokens, each spread over the whole device.
int64_t SelectTokensWorkspaceBytes(const SparseParams& params);
cudaError_t SelectTokens(const SparseParams& params, ConstRows q, int32_t* blocks, void* workspace,
                         cudaStream_t stream);

}  // namespace salamander::kernels::cuda

#endif  // SALAMANDER_KERNELS_CUDA_SELECT_H_
