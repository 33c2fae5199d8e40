// Stage 2 and dense attention: which kernel does it, and how decode is split.
#include <algorithm>
#include <cmath>

#include "kernels/cuda/attend.h"

namespace salamander::kernels::cuda {
namespace {

// Over how many thread blocks the blocks of one token and key/value head go.
int Splits(const SparseParams& params, int64_t blocks) {
  const int64_t pairs = std::max<int64_t>(1, params.count * params.kv.kv_heads);
  // Two thread blocks fit on a multiprocessor. Few pairs: fill the device once, with no fewer than two blocks each.
  const int64_t to_fill = std::min(2 * params.multiprocessors / pairs, (blocks + 1) / 2);
  // Many pairs: so short that the last wave's idle part is small.
  const int64_t to_balance = (blocks + 7) / 8;
  return static_cast<int>(std::clamp<int64_t>(std::max(to_fill, to_balance), 1, kMaxSplits));
}

int DenseSplits(const SparseParams& params) {
  return Splits(params, (params.max_tokens + kBlockTokens - 1) / kBlockTokens);
}

AttendTask Task(const SparseParams& params, ConstRows q, Rows out) {
  AttendTask task;
  task.kv = params.kv;
  task.group = static_cast<int>(params.heads / params.kv.kv_heads);
  task.sequences = params.sequences;
  task.q = q;
  task.out = out;
  task.scale = static_cast<float>(M_LOG2E / std::sqrt(static_cast<double>(params.kv.head_dim)));
  return task;
}

cudaError_t Attend(const SparseParams& params, const AttendTask& task, int splits, void* workspace,
                   cudaStream_t stream) {
  if (task.group > kMaxGroup) return cudaErrorInvalidValue;
  if (params.count == 0 || params.max_rows == 0) return cudaSuccess;
  if (params.max_rows == 1) return AttendTokens(task, params.count, splits, workspace, stream);
  if (params.arch == Arch::kSm90a && params.kv.head_dim >= 64) {
    return AttendTilesSm90a(task, params.count, params.max_rows, stream);
  }
  return AttendTiles(task, params.count, params.max_rows, stream);
}

}  // namespace

int64_t AttendWorkspaceBytes(const SparseParams& params) {
  if (params.max_rows != 1) return 0;
  return AttendTokensWorkspaceBytes(params.count, params.kv,
                                    std::max(DenseSplits(params), Splits(params, params.top_blocks)));
}

cudaError_t AttendBlocks(const SparseParams& params, ConstRows q, const int32_t* blocks, Rows out, void* workspace,
                         cudaStream_t stream) {
  AttendTask task = Task(params, q, out);
  task.blocks = blocks;
  task.top_blocks = static_cast<int>(params.top_blocks);
  return Attend(params, task, Splits(params, params.top_blocks), workspace, stream);
}

cudaError_t AttendDense(const SparseParams& params, ConstRows q, Rows out, void* workspace, cudaStream_t stream) {
  return Attend(params, Task(params, q, out), DenseSplits(params), workspace, stream);
}

}  // namespace salamander::kernels::cuda
