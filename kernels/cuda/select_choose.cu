// Stage 1, the choice: a warp takes the best blocks of one token and key/value head by their values.
//
// The best k blocks lie in the k pages with the best single blocks, since each of these has a block that beats all of
// any other page. So of most values only the best of their page is read.
#include <algorithm>

#include "kernels/cuda/device/chained.cuh"
#include "kernels/cuda/select.h"
#include "kernels/cuda/select_plan.cuh"
#include "kernels/cuda/select_top.cuh"

namespace salamander::kernels::cuda {
namespace {

constexpr int kWarps = 4;
constexpr int kBatch = TopList::kOffers;  // loads under way
constexpr int kSharedLimit = 96 * 1024;   // of all cards

// The values of one token and head.
class ItemValues {
 public:
  __device__ ItemValues(const BlockValues& values, int64_t item)
      : values_(reinterpret_cast<const float*>(values.values) + item * values.pages * kPageBlocks),
        ends_(values.ends + item * values.pages) {}

  __device__ float Page(int page, int begin) const {
    const float most = ends_[page].most;
    return page * kPageBlocks >= begin ? fmaxf(most, Before(page)) : most;
  }
  // -1 if it does not compete.
  __device__ float Block(int page, int block) const {
    const float value = values_[page * kPageBlocks + block % 4 * 4 + block / 4];
    return block == 0 && value >= 0 ? fmaxf(value, Before(page)) : value;
  }

 private:
  __device__ float Before(int page) const { return page > 0 ? ends_[page - 1].last : 0; }

  const float* values_;
  const PageEnd* ends_;
};

__global__ void __launch_bounds__(32 * kWarps)
    ChooseKernel(SparseParams params, TileRange range, BlockValues values, int32_t* blocks) {
  extern __shared__ __align__(1024) std::byte shared[];
  AllowNext();
  WaitForPrevious();
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, kv_heads = static_cast<int>(params.kv.kv_heads);
  const unsigned item = blockIdx.x * (blockDim.x / 32) + warp;
  const int slot = item / kv_heads, head = item % kv_heads;
  const int tile = range.begin + slot / range.tokens;
  if (tile >= range.end) return;
  const SparseSequence& seq = params.sequences[tile / range.per_sequence];
  const int64_t position =
      (seq.position / range.tokens + tile % range.per_sequence) * range.tokens + slot % range.tokens;
  const int64_t row = position - seq.position;
  if (row < 0 || row >= seq.rows) return;

  const ChoicePlan plan(params, position);
  const int top_blocks = static_cast<int>(params.top_blocks);
  int32_t* out = blocks + ((seq.row + row) * kv_heads + head) * params.top_blocks;
  if (!plan.contested()) {
    WriteUncontested(plan, top_blocks, out);
    return;
  }

  const ItemValues mine(values, item);
  auto* keys = reinterpret_cast<uint64_t*>(shared) + warp * 2 * TopList::Capacity(plan.places);
  TopList pages(keys, plan.places);
  const int end_page = (plan.end - 1) / static_cast<int>(kPageBlocks) + 1;
  for (int first = plan.begin / static_cast<int>(kPageBlocks); first < end_page; first += 32 * kBatch) {
    float most[kBatch];
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      const int page = first + 32 * i + lane;
      most[i] = page < end_page ? mine.Page(page, plan.begin) : -1;
    }
#pragma unroll
    for (int i = 0; i < kBatch; ++i) pages.Offer(most[i], first + 32 * i + lane);
    pages.MakeRoom();
  }
  pages.Cut();

  TopList chosen(keys + TopList::Capacity(plan.places), plan.places);
  for (int first = 0; first < pages.count(); first += 2 * kBatch) {
    float value[kBatch];
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      const int at = first + 2 * i + lane / 16;
      value[i] = at < pages.count() ? mine.Block(pages.block(at), lane % 16) : -1;
    }
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      const int at = min(first + 2 * i + lane / 16, pages.count() - 1);
      // As many blocks as are chosen have what the pages had to beat.
      chosen.Offer(value[i] >= pages.to_beat() ? value[i] : -1, pages.block(at) * kPageBlocks + lane % 16);
    }
    chosen.MakeRoom();
  }
  chosen.Cut();
  WriteForced(plan, plan.places, top_blocks, out);
  for (int i = lane; i < plan.places; i += 32) out[plan.begin + i] = chosen.block(i);
}

}  // namespace

cudaError_t ChooseBlocks(const SparseParams& params, const TileRange& range, const BlockValues& values, int32_t* blocks,
                         cudaStream_t stream) {
  const int places = static_cast<int>(std::max<int64_t>(1, CompetingPlaces(params)));
  const int warp_bytes = 2 * TopList::Capacity(places) * static_cast<int>(sizeof(uint64_t));
  int warps = kWarps;
  while (warps > 1 && warps * warp_bytes > kSharedLimit) warps /= 2;
  const cudaError_t error =
      cudaFuncSetAttribute(ChooseKernel, cudaFuncAttributeMaxDynamicSharedMemorySize, warps * warp_bytes);
  if (error != cudaSuccess) return error;
  const int64_t items = int64_t{range.end - range.begin} * range.tokens * params.kv.kv_heads;
  return LaunchChained(ChooseKernel, static_cast<unsigned>((items + warps - 1) / warps), 32 * warps,
                       static_cast<size_t>(warps * warp_bytes), stream, params, range, values, blocks);
}

}  // namespace salamander::kernels::cuda
