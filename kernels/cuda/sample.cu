// Draws of tokens, as sampling.h says: a thread block takes a row. It goes over the row's logits once for the largest,
// three times for each cut (top-k, top-p), once for the weights of what is kept, and once over a part of them for the
// token; they come from the L2 cache.
#include "kernels/cuda/device/block_reduce.cuh"
#include "kernels/cuda/launch.h"

namespace salamander::kernels::cuda {
namespace {

constexpr int kThreads = kReduceThreads;
static_assert(kCutBins == 2 * kThreads);

struct Shared {
  ReduceShared reduce;
  uint64_t bins[kCutBins];
  uint64_t near[kReduceWarps];  // of each warp's part: what is nearer than the cut weighs
  uint32_t ties[kReduceWarps];  // and how many are at it
  uint64_t rest;
  uint32_t bin;
};

// Larger is likelier; the lower id wins ties.
__device__ uint64_t OrderOf(float logit, int token) {
  const uint32_t bits = __float_as_uint(logit);
  const uint32_t order = bits >> 31 ? ~bits : bits | 0x80000000u;
  return static_cast<uint64_t>(order) << 32 | ~static_cast<uint32_t>(token);
}
__device__ int TokenOf(uint64_t order) { return static_cast<int>(~static_cast<uint32_t>(order)); }

// The likeliest token below `limit` in order.
__device__ uint64_t LikeliestBelow(const float* logits, int vocab, uint64_t limit, Shared& shared) {
  uint64_t best = 0;
#pragma unroll 8
  for (int token = threadIdx.x; token < vocab; token += kThreads) {
    const uint64_t order = OrderOf(Comparable(logits[token]), token);
    if (order < limit) best = max(best, order);
  }
  return BlockMax(best, shared.reduce);
}

struct Distances {
  const float* logits;
  int vocab;
  float best, scale;

  __device__ uint32_t operator[](int token) const { return DistanceOf(Comparable(logits[token]), best, scale); }
};

// Adds to a bin. By a whole warp: lanes that all meet in one bin add once.
__device__ void AddToBin(uint64_t* bins, bool takes_part, uint32_t bin, uint64_t amount) {
  const unsigned lanes = __ballot_sync(kAllLanes, takes_part);
  if (lanes == 0) return;
  const uint32_t leader_bin = __shfl_sync(kAllLanes, bin, __ffs(lanes) - 1);
  if (__all_sync(kAllLanes, !takes_part || bin == leader_bin)) {
    const uint64_t sum = WarpSum(takes_part ? amount : 0);
    if (threadIdx.x % 32 == 0) atomicAdd(reinterpret_cast<unsigned long long*>(bins + leader_bin), sum);
  } else if (takes_part) {
    atomicAdd(reinterpret_cast<unsigned long long*>(bins + bin), amount);
  }
}

// Where the sum of amount(distance) over distances under `below`, nearest first, reaches target_of(sum of all). False
// if it does not. `rest` is what the last distance has to give.
struct CutPoint {
  uint32_t distance = 0;
  uint64_t rest = 0;
};
template <class Amount, class Target>
__device__ bool FindCut(const Distances& distances, uint32_t below, Amount amount, Target target_of, CutPoint& point,
                        Shared& shared) {
  for (int number = 0; number < kCutLevels; ++number) {
    const CutLevel level = CutLevelOf(number);
    const bool first = number == 0;
    for (int bin = threadIdx.x; bin < kCutBins; bin += kThreads) shared.bins[bin] = 0;
    __syncthreads();
#pragma unroll 4
    for (int begin = 0; begin < distances.vocab; begin += kThreads) {
      const int token = begin + static_cast<int>(threadIdx.x);
      const uint32_t distance = token < distances.vocab ? distances[token] : kDistanceLimit;
      const bool takes_part = distance < below && (first || distance >> (level.shift + level.bits) == point.distance);
      AddToBin(shared.bins, takes_part, (distance >> level.shift) & ((1u << level.bits) - 1), amount(distance));
    }
    __syncthreads();
    const uint64_t even = shared.bins[2 * threadIdx.x], odd = shared.bins[2 * threadIdx.x + 1];
    uint64_t total;
    const uint64_t before = BlockSumBefore(even + odd, total, shared.reduce);
    if (first) {
      point.rest = target_of(total);
      if (point.rest > total) return false;
    }
    if (before < point.rest && point.rest <= before + even + odd) {
      const bool is_odd = point.rest > before + even;
      shared.bin = 2 * threadIdx.x + is_odd;
      shared.rest = point.rest - before - (is_odd ? even : 0);
    }
    __syncthreads();
    point.distance = point.distance << level.bits | shared.bin;
    point.rest = shared.rest;
  }
  return true;
}

__device__ Cut CutOf(const Distances& distances, const SampleRow& row, Shared& shared) {
  Cut cut;
  CutPoint point;
  if (row.top_k > 0) {
    auto one = [](uint32_t) { return uint64_t{1}; };
    auto target_of = [&](uint64_t) { return static_cast<uint64_t>(row.top_k); };
    if (FindCut(distances, cut.distance, one, target_of, point, shared)) {
      cut.distance = point.distance;
      cut.ties = static_cast<uint32_t>(point.rest);
    }
  }
  if (row.top_p < 1) {
    const uint64_t tie = WeightOf(cut.distance);
    uint64_t beyond = 0;  // what the ties at the cut have to give, if what is nearer is too little
    auto weight_of = [](uint32_t distance) { return WeightOf(distance); };
    auto target_of = [&](uint64_t total) {
      const uint64_t target = max(uint64_t{1}, PartOf(total + cut.ties * tie, row.top_p));
      beyond = target > total ? target - total : 0;
      return target;
    };
    point = {};
    if (FindCut(distances, cut.distance, weight_of, target_of, point, shared)) {
      const uint64_t weight = WeightOf(point.distance);
      cut.distance = point.distance;
      cut.ties = static_cast<uint32_t>((point.rest + weight - 1) / weight);
    } else {
      cut.ties = static_cast<uint32_t>((beyond + tie - 1) / tie);
    }
  }
  cut.least = PartOf(uint64_t{1} << kWeightBits, row.min_p);
  return cut;
}

__device__ int Draw(const Distances& distances, const Cut& cut, uint64_t random, Shared& shared) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  // Each warp has a part of the ids.
  const int part = (distances.vocab + kThreads - 1) / kThreads * 32;
  const int begin = warp * part, end = min(begin + part, distances.vocab);
  auto kept = [&](uint32_t distance) {
    const uint64_t weight = WeightOf(distance);
    return weight >= cut.least ? weight : 0;
  };
  uint64_t near = 0;
  uint32_t ties = 0;
#pragma unroll 8
  for (int token = begin + lane; token < end; token += 32) {
    const uint32_t distance = distances[token];
    if (distance < cut.distance) near += kept(distance);
    ties += distance == cut.distance;
  }
  near = WarpSum(near);
  ties = __reduce_add_sync(kAllLanes, ties);
  if (lane == 0) {
    shared.near[warp] = near;
    shared.ties[warp] = ties;
  }
  __syncthreads();

  const uint64_t tie = kept(cut.distance);
  uint64_t total = 0, before = 0;
  uint32_t ties_before = 0, all_ties = 0;
  for (int w = 0; w < kReduceWarps; ++w) {
    if (w == warp) {
      before = total;
      ties_before = all_ties;
    }
    const uint32_t left = cut.ties - min(cut.ties, all_ties);
    total += shared.near[w] + min(shared.ties[w], left) * tie;
    all_ties += shared.ties[w];
  }
  const uint64_t point = PointOf(total, random);
  const uint64_t mine = near + min(ties, cut.ties - min(cut.ties, ties_before)) * tie;
  if (before <= point && point < before + mine) {
    uint64_t sum = before;
    for (int first = begin; first < end; first += 32) {
      const int token = first + lane;
      const uint32_t distance = token < end ? distances[token] : kDistanceLimit;
      const bool at_cut = token < end && distance == cut.distance;
      const unsigned at_cuts = __ballot_sync(kAllLanes, at_cut);
      const bool tie_kept = at_cut && ties_before + __popc(at_cuts & ((1u << lane) - 1)) < cut.ties;
      const uint64_t through = sum + WarpSumThrough(distance < cut.distance || tie_kept ? kept(distance) : 0);
      const unsigned passed = __ballot_sync(kAllLanes, through > point);
      if (passed != 0) {
        if (lane == __ffs(passed) - 1) shared.bin = token;
        break;
      }
      sum = __shfl_sync(kAllLanes, through, 31);
      ties_before += __popc(at_cuts);
    }
  }
  __syncthreads();
  return static_cast<int>(shared.bin);
}

__device__ int Sample(const SampleItem& item, int vocab, Shared& shared) {
  const uint64_t likeliest = LikeliestBelow(item.edited, vocab, ~uint64_t{0}, shared);
  const int token = TokenOf(likeliest);
  const float best = Comparable(item.edited[token]);
  if (item.row.temperature == 0 || best == kLowestLogit) return token;
  const Distances distances = {item.edited, vocab, best, DistanceScale(item.row.temperature)};
  return Draw(distances, CutOf(distances, item.row, shared), item.row.random, shared);
}

__global__ void __launch_bounds__(kThreads)
    SampleKernel(const SampleItem* items, int vocab, SampledToken* tokens, TokenLogprob* top, int64_t top_stride) {
  __shared__ Shared shared;
  const SampleItem item = items[blockIdx.x];
  SampledToken sampled = {Sample(item, vocab, shared), 0};
  if (item.row.logprobs >= 0) {
    uint64_t order = LikeliestBelow(item.logits, vocab, ~uint64_t{0}, shared);
    const float best = Comparable(item.logits[TokenOf(order)]);
    float sum = 0;
#pragma unroll 8
    for (int token = threadIdx.x; token < vocab; token += kThreads) sum += expf(Comparable(item.logits[token]) - best);
    const float log_total = logf(BlockSum(sum, shared.reduce));
    auto logprob = [&](int token) { return Comparable(item.logits[token]) - best - log_total; };
    sampled.logprob = logprob(sampled.token);
    const int likeliest = min(min(item.row.logprobs, vocab), static_cast<int>(top_stride));
    for (int i = 0; i < likeliest; ++i) {
      if (i > 0) order = LikeliestBelow(item.logits, vocab, order, shared);
      if (threadIdx.x == 0) top[blockIdx.x * top_stride + i] = {TokenOf(order), logprob(TokenOf(order))};
    }
  }
  if (threadIdx.x == 0) tokens[blockIdx.x] = sampled;
}

constexpr int kEditThreads = 256;
__global__ void __launch_bounds__(kEditThreads)
    EditKernel(const LogitEdit* edits, int64_t count, float* logits, int64_t stride) {
  const int64_t i = int64_t{blockIdx.x} * kEditThreads + threadIdx.x;
  if (i >= count) return;
  const LogitEdit edit = edits[i];
  float& logit = logits[edit.row * stride + edit.token];
  // Rounded after every step, as on the CPU.
  logit = __fadd_rn(logit > 0 ? __fdiv_rn(logit, edit.factor) : __fmul_rn(logit, edit.factor), edit.added);
}

}  // namespace

cudaError_t EditLogits(const LogitEdit* edits, int64_t count, float* logits, int64_t stride, cudaStream_t stream) {
  const auto blocks = static_cast<unsigned>((count + kEditThreads - 1) / kEditThreads);
  EditKernel<<<blocks, kEditThreads, 0, stream>>>(edits, count, logits, stride);
  return cudaGetLastError();
}

cudaError_t SampleTokens(const SampleItem* items, int64_t count, int64_t vocab, SampledToken* tokens, TokenLogprob* top,
                         int64_t top_stride, cudaStream_t stream) {
  SampleKernel<<<static_cast<unsigned>(count), kThreads, 0, stream>>>(items, static_cast<int>(vocab), tokens, top,
                                                                      top_stride);
  return cudaGetLastError();
}

}  // namespace salamander::kernels::cuda
