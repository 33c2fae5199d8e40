// Stage 1, the choice of single tokens: a thread block takes the best blocks of one token and key/value head by their
// values.
//
// The threads' best values give a bound: of k places, k threads have a value at or above the k-th largest of these, so
// no lower one is chosen. Few values reach it, and these go to a list in shared memory, which is cut to its best k.
// Both k-th largest are found bit by bit from the top, by barriers that count (radix selection with digits of one bit).
#include <algorithm>

#include "kernels/cuda/device/chained.cuh"
#include "kernels/cuda/select.h"
#include "kernels/cuda/select_plan.cuh"

namespace salamander::kernels::cuda {
namespace {

constexpr int kThreads = 512;
constexpr int kRoundBlocks = kThreads * kUnitBlocks;

// Values of blocks in their order; 0 is no block.
__device__ uint32_t Order(float value) { return value >= 0 ? __float_as_uint(value) + 1 : 0; }
constexpr int kOrderBits = 31;

// Candidates as keys, greater ones better: the order of the value, then lower blocks first. All threads call together.
class Candidates {
 public:
  // `keys` has `capacity` ≥ places + kRoundBlocks, `count` is 0. Blocks are below `end`.
  __device__ Candidates(uint64_t* keys, int* count, int capacity, int places, int end)
      : keys_(keys), count_(count), capacity_(capacity), places_(places), end_(end) {}

  // Those of a thread's values, of blocks first_block …, that reach the bound and what cuts have left.
  __device__ void Offer(const float (&values)[kUnitBlocks], int first_block) {
#pragma unroll
    for (int i = 0; i < kUnitBlocks; ++i) {
      const uint64_t key = Key(Order(values[i]), first_block + i);
      if (key >= least_) keys_[atomicAdd(count_, 1)] = key;
    }
  }
  // After each round of offers, one of every thread.
  __device__ void EndRound(bool last) {
    __syncthreads();
    size_ = *count_;
    if (size_ > places_ && (last || size_ + kRoundBlocks > capacity_)) {
      Cut();
    } else if (!last) {
      __syncthreads();  // all have read the count
    }
  }
  __device__ void SetBound(uint32_t order) { least_ = uint64_t{max(order, 1u)} << 32; }

  __device__ int size() const { return size_; }
  __device__ int block(int i) const { return end_ - 1 - static_cast<int>(static_cast<uint32_t>(keys_[i])); }

 private:
  __device__ uint64_t Key(uint32_t order, int block) const {
    return uint64_t{order} << 32 | static_cast<uint32_t>(end_ - 1 - block);
  }

  // To the best `places` of more.
  __device__ void Cut() {
    least_ = FindCut();
    if (threadIdx.x == 0) *count_ = 0;
#pragma unroll 1
    for (int first = 0; first < size_; first += kThreads) {
      const int i = first + static_cast<int>(threadIdx.x);
      const uint64_t key = i < size_ ? keys_[i] : 0;
      __syncthreads();  // all before first + kThreads are read, and no more will be kept
      if (key >= least_) keys_[atomicAdd(count_, 1)] = key;
    }
    __syncthreads();
    size_ = places_;
  }

  // The least of the best `places` keys, or a lower one that tells them from the others too: keys differ.
  __device__ uint64_t FindCut() const {
    const uint64_t first = static_cast<int>(threadIdx.x) < size_ ? keys_[threadIdx.x] : 0;
    uint64_t cut = 0;
#pragma unroll 1  // code that runs once is slow to fetch
    for (int bit = 32 + kOrderBits - 1; bit >= 0; --bit) {
      if (bit == 31) bit = 31 - __clz(end_);  // of the greatest block
      const uint64_t trial = cut | uint64_t{1} << bit;
      int above = __syncthreads_count(first >= trial);
      for (int i = kThreads + static_cast<int>(threadIdx.x); i - static_cast<int>(threadIdx.x) < size_; i += kThreads) {
        above += __syncthreads_count(i < size_ && keys_[i] >= trial);
      }
      if (above >= places_) cut = trial;
      if (above == places_) break;
    }
    return cut;
  }

  uint64_t* keys_;
  int* count_;
  int capacity_, places_, end_;
  int size_ = 0;
  uint64_t least_ = 0;
};

// The greatest order that `places` threads reach with theirs, or one above the next: 0 if there are fewer.
__device__ uint32_t Bound(uint32_t order, int places) {
  uint32_t bound = 0;
#pragma unroll 1  // as in FindCut
  for (int bit = kOrderBits - 1; bit >= 0; --bit) {
    const uint32_t trial = bound | 1u << bit;
    const int above = __syncthreads_count(order >= trial);
    if (above >= places) bound = trial;
    if (above == places) break;
  }
  return bound;
}

// Grid: (kv_heads, count).
__global__ void __launch_bounds__(kThreads)
    ChooseTokensKernel(SparseParams params, TokenValues values, int32_t* blocks, int capacity) {
  extern __shared__ uint64_t keys[];
  __shared__ int count;
  const SparseSequence seq = params.sequences[blockIdx.y];
  const ChoicePlan plan(params, seq.position);
  const int thread = static_cast<int>(threadIdx.x), top_blocks = static_cast<int>(params.top_blocks);
  if (thread == 0) count = 0;
  WaitForPrevious();
  AllowNext();
  if (seq.rows == 0) return;
  int32_t* out = blocks + (seq.row * params.kv.kv_heads + blockIdx.x) * params.top_blocks;
  if (!plan.contested()) {
    if (thread < 32) WriteUncontested(plan, top_blocks, out);
    return;
  }

  const int64_t item = blockIdx.y * params.kv.kv_heads + blockIdx.x;
  const float4* of_units = values.blocks + item * values.units;
  const float* last = values.last + item * values.units;
  const int begin_unit = plan.begin / kUnitBlocks, end_unit = (plan.end - 1) / kUnitBlocks + 1;
  auto load = [&](int unit, float(&value)[kUnitBlocks]) {
    const bool exists = unit < end_unit;
    const float4 unit_values = exists ? of_units[unit] : float4{-1, -1, -1, -1};
    const float before = exists && unit > 0 ? last[unit - 1] : 0;
    value[0] = unit_values.x >= 0 ? fmaxf(unit_values.x, before) : -1;
    value[1] = unit_values.y, value[2] = unit_values.z, value[3] = unit_values.w;
  };

  float most = -1;
#pragma unroll 4  // loads under way
  for (int unit = begin_unit + thread; unit < end_unit; unit += kThreads) {
    float value[kUnitBlocks];
    load(unit, value);
#pragma unroll
    for (float one : value) most = fmaxf(most, one);
  }
  Candidates chosen(keys, &count, capacity, plan.places, plan.end);
  chosen.SetBound(Bound(Order(most), plan.places));
  for (int first = begin_unit; first < end_unit; first += kThreads) {
    float value[kUnitBlocks];
    load(first + thread, value);
    chosen.Offer(value, (first + thread) * kUnitBlocks);
    chosen.EndRound(first + kThreads >= end_unit);
  }

  // Ascending: each goes behind the lower ones. Of values that are no numbers, fewer than the places remain.
  for (int i = thread; i < chosen.size(); i += kThreads) {
    const int block = chosen.block(i);
    int lower = 0;
    for (int j = 0; j < chosen.size(); ++j) lower += chosen.block(j) < block;
    out[plan.begin + lower] = block;
  }
  if (thread < 32) WriteForced(plan, chosen.size(), top_blocks, out);
}

}  // namespace

cudaError_t ChooseTokens(const SparseParams& params, const TokenValues& values, int32_t* blocks, cudaStream_t stream) {
  // Room for one round more than is needed, so that lists are cut rarely.
  const int64_t capacity = std::max<int64_t>(1, CompetingPlaces(params)) + 2 * kRoundBlocks;
  const auto shared = static_cast<size_t>(capacity) * sizeof(uint64_t);
  const cudaError_t error =
      cudaFuncSetAttribute(ChooseTokensKernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared));
  if (error != cudaSuccess) return error;
  const dim3 grid(static_cast<unsigned>(params.kv.kv_heads), static_cast<unsigned>(params.count));
  return LaunchChained(ChooseTokensKernel, grid, kThreads, shared, stream, params, values, blocks,
                       static_cast<int>(capacity));
}

}  // namespace salamander::kernels::cuda
