// Stage 1: which kernels do it, and how many tokens at a time.
#include <algorithm>

#include "kernels/cuda/select.h"

namespace salamander::kernels::cuda {
namespace {

// Of block values; at a million tokens of context 16 tokens of two key/value heads take 2.25 MiB.
constexpr int64_t kMostValueBytes = int64_t{480} << 20;

struct SelectPlan {
  explicit SelectPlan(const SparseParams& params)
      : pages(std::max<int64_t>(1, (params.max_tokens + kPageTokens - 1) / kPageTokens)) {
    sm90a = HasSelectTilesSm90a(params);
    tokens = sm90a ? kSelectTileTokensSm90a : kSelectTileTokens;
    per_sequence = static_cast<int>((params.max_rows + 2 * tokens - 2) / tokens);
    all_tiles = static_cast<int>(params.count * per_sequence);
    const int64_t fit = std::max<int64_t>(1, kMostValueBytes / TileBytes(params));
    // If not all at once, then so many that they fill the device a whole number of times.
    const int64_t resident = std::max(1, params.multiprocessors) * (sm90a ? 1 : kSelectTileOccupancy);
    const int64_t fills = fit * params.kv.kv_heads / resident;
    const int64_t full = fills > 0 ? std::max<int64_t>(1, fills * resident / params.kv.kv_heads) : fit;
    tiles_at_once = static_cast<int>(fit >= all_tiles ? all_tiles : full);
    value_bytes = tiles_at_once * TileBytes(params);
  }
  int64_t TileBytes(const SparseParams& params) const {
    return tokens * params.kv.kv_heads * pages * BlockValues::kPageBytes;
  }
  BlockValues Values(void* workspace) const {
    BlockValues values;
    values.values = static_cast<float4*>(workspace);
    values.ends = reinterpret_cast<PageEnd*>(values.values + value_bytes / BlockValues::kPageBytes * kPageBlocks / 4);
    values.pages = pages;
    return values;
  }

  int64_t pages;
  bool sm90a = false;
  int tokens = 1, per_sequence = 1;
  int all_tiles = 0, tiles_at_once = 0;
  int64_t value_bytes = 0;
};

}  // namespace

int64_t SelectWorkspaceBytes(const SparseParams& params) {
  return params.max_rows == 1 ? SelectTokensWorkspaceBytes(params) : SelectPlan(params).value_bytes;
}

cudaError_t SelectBlocks(const SparseParams& params, ConstRows q, int32_t* blocks, void* workspace,
                         cudaStream_t stream) {
  const int64_t group = params.heads / params.kv.kv_heads;
  if (group > kSelectMaxGroup || params.kv.type != DType::kBFloat16) return cudaErrorInvalidValue;
  if (params.count == 0 || params.max_rows == 0) return cudaSuccess;
  if (params.max_rows == 1) return SelectTokens(params, q, blocks, workspace, stream);
  const SelectPlan plan(params);
  const BlockValues values = plan.Values(workspace);
  TileRange range = {plan.tokens, plan.per_sequence, 0, 0};
  for (; range.begin < plan.all_tiles; range.begin = range.end) {
    range.end = std::min(range.begin + plan.tiles_at_once, plan.all_tiles);
    cudaError_t error =
        plan.sm90a ? SelectTilesSm90a(params, q, range, values, stream) : SelectTiles(params, q, range, values, stream);
    if (error == cudaSuccess) error = ChooseBlocks(params, range, values, blocks, stream);
    if (error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

}  // namespace salamander::kernels::cuda
