// Stage 2 and dense attention of one token a sequence (decode), at the speed of memory: the blocks of a token and
// key/value head are split over thread blocks (Flash-Decoding), and a second kernel combines their results.
//
// The warps of a thread block share every block, 16 keys each. A warp loads what it uses and nothing else, so warps
// wait for their own copies only.
#include "kernels/cuda/attend.h"
#include "kernels/cuda/attend_blocks.cuh"
#include "kernels/cuda/attend_rows.cuh"
#include "kernels/cuda/device/chained.cuh"

namespace salamander::kernels::cuda {
namespace {

constexpr int kWarps = 4;
constexpr int kThreads = kWarps * 32;
constexpr int kWarpKeys = kBlock / kWarps;
// Of blocks: one being used, two under way. Two thread blocks of head size 128 fit on a multiprocessor.
constexpr int kStages = 3;

// What one split, or one warp, found for a head: out is relative to 2^(scale · most).
template <int kDim>
struct Partial {
  float out[kMaxGroup][kDim];
  float most[kMaxGroup];
  float sum[kMaxGroup];
};

template <int kDim>
__device__ void StorePartial(AttendRows<kDim>& rows, Partial<kDim>* to) {
  rows.SumLanes();
  const int row = threadIdx.x % 32 / 4, col = threadIdx.x % 4 * 2;
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int head = row + r * 8;
#pragma unroll
    for (int n = 0; n < kDim / 8; ++n) {
      *reinterpret_cast<float2*>(&to->out[head][n * 8 + col]) = {rows.out[n][2 * r], rows.out[n][2 * r + 1]};
    }
    if (threadIdx.x % 4 == 0) {
      to->most[head] = rows.most[r];
      to->sum[head] = rows.sum[r];
    }
  }
}

// The blocks [begin, end) of one token's list, null: of all blocks. Looked up 32 at a time, one a lane, so that the
// latencies of list and page table are met once and not for every block. All lanes call together.
class TokenBlocks {
 public:
  __device__ TokenBlocks(const AttendTask& task, std::byte* const* pages, const int32_t* list, int begin, int end,
                         int kv_head)
      : kv_(task.kv), pages_(pages), list_(list), at_(begin), end_(end), kv_head_(kv_head) {}

  // The next block and where its keys lie, or -1; the padding of a list ends it.
  __device__ int Next(const std::byte** data) {
    if (taken_ == 0) LookUp();
    const int block = __shfl_sync(kAllLanes, block_, taken_);
    *data =
        reinterpret_cast<const std::byte*>(__shfl_sync(kAllLanes, reinterpret_cast<unsigned long long>(data_), taken_));
    taken_ = (taken_ + 1) % 32;
    return block;
  }

 private:
  __device__ void LookUp() {
    const int i = at_ + static_cast<int>(threadIdx.x) % 32;
    block_ = i >= end_ ? -1 : list_ == nullptr ? i : list_[i];
    if (block_ >= 0) data_ = BlockData(kv_, pages_, block_, kv_head_);
    at_ += 32;
  }

  const KvLayout& kv_;
  std::byte* const* pages_;
  const int32_t* list_;
  int at_, end_, kv_head_;
  int taken_ = 0;  // of those looked up
  int block_ = -1;
  const std::byte* data_ = nullptr;
};

// Grid: (splits, kv_heads, count).
template <int kDim>
__global__ void __launch_bounds__(kThreads) AttendTokensKernel(const AttendTask task, Partial<kDim>* partials) {
  using Tile = BlockTile<kDim>;
  extern __shared__ __align__(128) std::byte shared[];
  AllowNext();
  WaitForPrevious();
  const SparseSequence sequence = task.sequences[blockIdx.z];
  if (sequence.rows == 0) return;
  const int kv_head = blockIdx.y, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int first_key = warp * kWarpKeys;
  const int64_t position = sequence.position;
  const int32_t* list = nullptr;
  int count = static_cast<int>(position / kBlock) + 1;
  if (task.blocks != nullptr) {
    list = task.blocks + (sequence.row * task.kv.kv_heads + kv_head) * task.top_blocks;
    count = task.top_blocks;
  }
  const int split = blockIdx.x, splits = gridDim.x;
  const int begin = count * split / splits, end = count * (split + 1) / splits;

  const uint32_t stages = SharedAddress(shared);
  TokenBlocks walk(task, sequence.pages, list, begin, end, kv_head);
  // Loads this warp's part of the next block, if there is one.
  auto load = [&](int stage) {
    const std::byte* data;
    const int block = walk.Next(&data);
    if (block >= 0) {
      const uint32_t tile = stages + stage * Tile::kBytes;
      const int keys = VisibleKeys(position, block);
      Tile::template Copy<32, kWarpKeys>(tile, data, first_key, keys, lane);
      Tile::template Copy<32, kWarpKeys>(tile, data, kBlock + first_key, keys, lane);
    }
    CommitCopies();
    return block;
  };
  int block = load(0), next = load(1);
  AttendRows<kDim> rows;
  rows.Start(task.q.data + sequence.row * task.q.stride + static_cast<int64_t>(kv_head) * task.group * kDim,
             task.group);
  for (int stage = 0; block >= 0; stage = stage == kStages - 1 ? 0 : stage + 1) {
    const int last = load(stage == 0 ? kStages - 1 : stage - 1);
    WaitCopies<2>();
    __syncwarp();
    const int keys = VisibleKeys(position, block) - first_key;
    if (keys > 0) rows.template Attend<kWarpKeys>(stages + stage * Tile::kBytes, first_key, keys, task.scale);
    __syncwarp();  // all lanes are done with the stage before it is loaded again
    block = next;
    next = last;
  }

  // The stages become the place where warps meet.
  static_assert(kWarps * sizeof(Partial<kDim>) <= kStages * Tile::kBytes);
  WaitCopies<0>();
  __syncthreads();
  auto* found = reinterpret_cast<Partial<kDim>*>(shared);
  StorePartial(rows, found + warp);
  __syncthreads();
  Partial<kDim>& to = partials[(static_cast<int64_t>(blockIdx.z) * gridDim.y + kv_head) * splits + split];
  for (int i = threadIdx.x; i < task.group * kDim; i += kThreads) {
    const int head = i / kDim, col = i % kDim;
    float most = found[0].most[head];
    for (int w = 1; w < kWarps; ++w) most = fmaxf(most, found[w].most[head]);
    float out = 0, sum = 0;
    for (int w = 0; w < kWarps; ++w) {
      const float factor = FastExp2((found[w].most[head] - most) * task.scale);
      out += found[w].out[head][col] * factor;
      sum += found[w].sum[head] * factor;
    }
    to.out[head][col] = out;
    if (col == 0) {
      to.most[head] = most;
      to.sum[head] = sum;
    }
  }
}

// Grid: (group, kv_heads, count); a thread has a column.
template <int kDim>
__global__ void __launch_bounds__(kDim)
    CombineTokensKernel(const AttendTask task, const Partial<kDim>* partials, int splits) {
  AllowNext();
  WaitForPrevious();
  const SparseSequence sequence = task.sequences[blockIdx.z];
  if (sequence.rows == 0) return;
  const int head = blockIdx.x, kv_head = blockIdx.y, col = threadIdx.x, lane = threadIdx.x % 32;
  partials += (static_cast<int64_t>(blockIdx.z) * gridDim.y + kv_head) * splits;

  // Every warp weighs the splits for itself: lane i those at i and i + 32.
  static_assert(kMaxSplits == 64);
  float most[2], factor[2], sum = 0;
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int split = lane + 32 * i;
    most[i] = split < splits ? partials[split].most[head] : kBelowAllScores;
  }
  float top = fmaxf(most[0], most[1]);
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) top = fmaxf(top, __shfl_xor_sync(kAllLanes, top, offset));
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int split = lane + 32 * i;
    factor[i] = FastExp2((most[i] - top) * task.scale);
    if (split < splits) sum += partials[split].sum[head] * factor[i];
  }
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) sum += __shfl_xor_sync(kAllLanes, sum, offset);

  float out = 0;
#pragma unroll 16
  for (int s = 0; s < splits; ++s) {
    out += partials[s].out[head][col] * __shfl_sync(kAllLanes, s < 32 ? factor[0] : factor[1], s % 32);
  }
  bf16* to =
      task.out.data + sequence.row * task.out.stride + (static_cast<int64_t>(kv_head) * task.group + head) * kDim;
  to[col] = __float2bfloat16(sum > 0 ? out / sum : 0);
}

template <int kDim>
cudaError_t Launch(const AttendTask& task, int64_t count, int splits, void* workspace, cudaStream_t stream) {
  constexpr int kShared = kStages * BlockTile<kDim>::kBytes;
  cudaError_t error =
      cudaFuncSetAttribute(AttendTokensKernel<kDim>, cudaFuncAttributeMaxDynamicSharedMemorySize, kShared);
  if (error != cudaSuccess) return error;
  auto* partials = static_cast<Partial<kDim>*>(workspace);
  const auto kv_heads = static_cast<unsigned>(task.kv.kv_heads), sequences = static_cast<unsigned>(count);
  const dim3 grid(static_cast<unsigned>(splits), kv_heads, sequences);
  error = LaunchChained(AttendTokensKernel<kDim>, grid, kThreads, size_t{kShared}, stream, task, partials);
  if (error != cudaSuccess) return error;
  const dim3 heads(static_cast<unsigned>(task.group), kv_heads, sequences);
  return LaunchChained(CombineTokensKernel<kDim>, heads, kDim, stream, task, partials, splits);
}

}  // namespace

int64_t AttendTokensWorkspaceBytes(int64_t count, const KvLayout& kv, int splits) {
  return count * kv.kv_heads * splits * kMaxGroup * (kv.head_dim + 2) * static_cast<int64_t>(sizeof(float));
}

cudaError_t AttendTokens(const AttendTask& task, int64_t count, int splits, void* workspace, cudaStream_t stream) {
  switch (task.kv.head_dim) {
    case 32:
      return Launch<32>(task, count, splits, workspace, stream);
    case 64:
      return Launch<64>(task, count, splits, workspace, stream);
    case 128:
      return Launch<128>(task, count, splits, workspace, stream);
    default:
      return cudaErrorInvalidValue;
  }
}

}  // namespace salamander::kernels::cuda
