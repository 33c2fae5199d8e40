#include "kernels/cuda/select.h"

namespace salamander::kernels::cuda {

int64_t SelectWorkspaceBytes(const SparseParams& params) {
  return params.max_rows == 1 ? SelectTokensWorkspaceBytes(params) : 0;
}

cudaError_t SelectBlocks(const SparseParams& params, ConstRows q, int32_t* blocks, void* workspace,
                         cudaStream_t stream) {
  const int64_t group = params.heads / params.kv.kv_heads;
  if (group > kSelectMaxGroup || params.kv.type != DType::kBFloat16) return cudaErrorInvalidValue;
  if (params.count == 0 || params.max_rows == 0) return cudaSuccess;
  if (params.max_rows == 1) return SelectTokens(params, q, blocks, workspace, stream);
  if (HasSelectTilesSm90a(params)) return SelectTilesSm90a(params, q, blocks, stream);
  return SelectTiles(params, q, blocks, stream);
}

}  // namespace salamander::kernels::cuda
