// Draws of tokens, as sampling.h says: a team of thread blocks takes a row. It goes over the row's logits once for the
// largest, three times for each cut (top-k, top-p), once for the weights of what is kept, and once over a part of them
// for the token; they come from the L2 cache.
#include "kernels/cuda/device/team.cuh"
#include "kernels/cuda/launch.h"

namespace salamander::kernels::cuda {
namespace {

// Larger is likelier; the lower id wins ties.
__device__ uint64_t OrderOf(float logit, int token) {
  const uint32_t bits = __float_as_uint(logit);
  const uint32_t order = bits >> 31 ? ~bits : bits | 0x80000000u;
  return static_cast<uint64_t>(order) << 32 | ~static_cast<uint32_t>(token);
}
__device__ int TokenOf(uint64_t order) { return static_cast<int>(~static_cast<uint32_t>(order)); }

// Adds to a bin. By a whole warp: lanes that all meet in one bin add once.
__device__ void AddToBin(uint64_t* bins, bool takes_part, uint32_t bin, uint64_t amount) {
  const unsigned lanes = __ballot_sync(kAllLanes, takes_part);
  if (lanes == 0) return;
  const uint32_t first_bin = __shfl_sync(kAllLanes, bin, __ffs(lanes) - 1);
  if (__all_sync(kAllLanes, !takes_part || bin == first_bin)) {
    const uint64_t sum = WarpSum(takes_part ? amount : 0);
    if (threadIdx.x % 32 == 0) atomicAdd(reinterpret_cast<unsigned long long*>(bins + first_bin), sum);
  } else if (takes_part) {
    atomicAdd(reinterpret_cast<unsigned long long*>(bins + bin), amount);
  }
}

struct CutPoint {
  uint32_t distance = 0;
  uint64_t rest = 0;
};

// One row's draw, by all threads of a team of kBlocks.
template <int kBlocks, int kThreads>
class Sampler {
 public:
  using RowTeam = Team<kBlocks, kThreads>;
  static constexpr int kWarps = RowTeam::kWarps;
  struct Shared {
    typename RowTeam::Shared team;
    uint64_t bins[kCutBins];
    uint32_t found_bin;
    uint64_t found_rest;
    uint64_t near[kWarps];  // of each warp's part: what is nearer than the cut weighs
    uint32_t ties[kWarps];  // and how many are at it
  };

  __device__ Sampler(const SampleItem& item, int vocab, Shared& shared)
      : item_(item), vocab_(vocab), shared_(shared), team_(shared.team) {}

  // Calls write(token) in one thread of the team.
  template <class Write>
  __device__ void Sample(Write write) {
    const int likeliest = TokenOf(LikeliestBelow(item_.edited, ~uint64_t{0}));
    best_ = Comparable(item_.edited[likeliest]);
    if (item_.row.temperature == 0 || best_ == kLowestLogit) {
      if (RowTeam::rank() == 0 && threadIdx.x == 0) write(likeliest);
      return;
    }
    scale_ = DistanceScale(item_.row.temperature);
    Draw(CutOf(), write);
  }

  // log(Σ exp(logit)) of the model's logits: its parts, of which the second is to be taken away first.
  struct LogTotal {
    uint64_t likeliest;
    float best, log_sum;
    __device__ float Logprob(float logit) const {
      return best == kLowestLogit ? kLowestLogit : Comparable(logit) - best - log_sum;
    }
  };
  __device__ LogTotal Total() {
    const uint64_t likeliest = LikeliestBelow(item_.logits, ~uint64_t{0});
    const float best = Comparable(item_.logits[TokenOf(likeliest)]);
    float sum = 0;
#pragma unroll 4
    for (int token = First(); token < vocab_; token += kStep) sum += expf(Comparable(item_.logits[token]) - best);
    return {likeliest, best, logf(team_.Sum(sum))};
  }

  // The likeliest token below `limit` in order.
  __device__ uint64_t LikeliestBelow(const float* logits, uint64_t limit) {
    uint64_t best = 0;
#pragma unroll 4
    for (int token = First(); token < vocab_; token += kStep) {
      const uint64_t order = OrderOf(Comparable(logits[token]), token);
      if (order < limit) best = max(best, order);
    }
    return team_.Max(best);
  }

 private:
  static constexpr int kStep = kBlocks * kThreads;
  __device__ static int First() { return RowTeam::rank() * kThreads + static_cast<int>(threadIdx.x); }
  __device__ uint32_t Distance(int token) const { return DistanceOf(Comparable(item_.edited[token]), best_, scale_); }

  // Where the sum of amount(distance) over distances under `below`, nearest first, reaches target_of(sum of all). False
  // if it does not. `rest` is what the last distance has to give.
  template <class Amount, class Target>
  __device__ bool FindCut(uint32_t below, Amount amount, Target target_of, CutPoint& point) {
    point = {};
    for (int number = 0; number < kCutLevels; ++number) {
      const CutLevel level = CutLevelOf(number);
      for (int bin = threadIdx.x; bin < kCutBins; bin += kThreads) shared_.bins[bin] = 0;
      __syncthreads();
#pragma unroll 2
      for (int begin = RowTeam::rank() * kThreads; begin < vocab_; begin += kStep) {
        const int token = begin + static_cast<int>(threadIdx.x);
        const uint32_t distance = token < vocab_ ? Distance(token) : kDistanceLimit;
        const bool takes_part =
            distance < below && (number == 0 || distance >> (level.shift + level.bits) == point.distance);
        AddToBin(shared_.bins, takes_part, (distance >> level.shift) & ((1u << level.bits) - 1), amount(distance));
      }
      RowTeam::Sync();

      // Each block sums up some of the bins over all blocks.
      constexpr int kOwn = kCutBins / kBlocks, kMine = kOwn > kThreads ? kOwn / kThreads : 1;
      const int first_bin = RowTeam::rank() * kOwn + static_cast<int>(threadIdx.x) * kMine;
      uint64_t bins[kMine] = {}, mine = 0;
      if (static_cast<int>(threadIdx.x) * kMine < kOwn) {
        for (int i = 0; i < kMine; ++i) {
          for (int block = 0; block < kBlocks; ++block) bins[i] += *RowTeam::Of(&shared_.bins[first_bin + i], block);
          mine += bins[i];
        }
      }
      uint64_t of_block, before = 0, total = 0;
      const uint64_t in_block = team_.BlockSumBefore(mine, of_block);
      uint64_t ends[kBlocks];
      team_.Tell(of_block, [&](int rank, uint64_t sum) {
        if (rank == RowTeam::rank()) before = total;
        total += sum;
        ends[rank] = total;
      });
      if (number == 0) {
        point.rest = target_of(total);
        if (point.rest > total) return false;
      }
      int owner = 0;
      while (ends[owner] < point.rest) ++owner;
      before += in_block;
      if (before < point.rest && point.rest <= before + mine) {
        uint32_t bin = first_bin;
        for (int i = 0; point.rest > before + bins[i]; ++i, ++bin) before += bins[i];
        shared_.found_bin = bin;
        shared_.found_rest = point.rest - before;
      }
      RowTeam::Sync();
      point = {point.distance << level.bits | *RowTeam::Of(&shared_.found_bin, owner),
               *RowTeam::Of(&shared_.found_rest, owner)};
    }
    return true;
  }

  __device__ Cut CutOf() {
    const SampleRow& row = item_.row;
    Cut cut;
    CutPoint point;
    if (row.top_k > 0) {
      auto one = [](uint32_t) { return uint64_t{1}; };
      auto target_of = [&](uint64_t) { return static_cast<uint64_t>(row.top_k); };
      if (FindCut(cut.distance, one, target_of, point)) {
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
      if (FindCut(cut.distance, weight_of, target_of, point)) {
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

  // What tokens in the order of ids weigh: those nearer than the cut, and those at it, of which not all may be kept.
  struct Weights {
    uint64_t near = 0;
    uint32_t ties = 0;
  };
  // Of `weights` that come after others, the first `ties` of all being kept.
  __device__ static uint64_t Kept(const Weights& weights, uint32_t ties_before, const Cut& cut, uint64_t tie) {
    return weights.near + min(weights.ties, cut.ties - min(cut.ties, ties_before)) * tie;
  }

  template <class Write>
  __device__ void Draw(const Cut& cut, Write write) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, rank = RowTeam::rank();
    auto kept = [&](uint32_t distance) {
      const uint64_t weight = WeightOf(distance);
      return weight >= cut.least ? weight : 0;
    };
    const uint64_t tie = kept(cut.distance);
    // Each warp has a part of the ids.
    const int part = (vocab_ + kStep - 1) / kStep * 32;
    const int begin = (rank * kWarps + warp) * part, end = min(begin + part, vocab_);
    Weights mine;
#pragma unroll 4
    for (int token = begin + lane; token < end; token += 32) {
      const uint32_t distance = Distance(token);
      if (distance < cut.distance) mine.near += kept(distance);
      mine.ties += distance == cut.distance;
    }
    mine = {WarpSum(mine.near), __reduce_add_sync(kAllLanes, mine.ties)};
    __syncthreads();
    if (lane == 0) {
      shared_.near[warp] = mine.near;
      shared_.ties[warp] = mine.ties;
    }
    __syncthreads();

    Weights of_block;
    for (int w = 0; w < kWarps; ++w) {
      of_block.near += shared_.near[w];
      of_block.ties += shared_.ties[w];
    }
    uint64_t near[kBlocks], total = 0, before = 0;
    uint32_t ties_before = 0, all_ties = 0;
    team_.Tell(of_block.near, [&](int block, uint64_t sum) { near[block] = sum; });
    team_.Tell(of_block.ties, [&](int block, uint64_t ties) {
      if (block == rank) {
        before = total;
        ties_before = all_ties;
      }
      total += Kept({near[block], static_cast<uint32_t>(ties)}, all_ties, cut, tie);
      all_ties += static_cast<uint32_t>(ties);
    });
    for (int w = 0; w < warp; ++w) {
      before += Kept({shared_.near[w], shared_.ties[w]}, ties_before, cut, tie);
      ties_before += shared_.ties[w];
    }
    const uint64_t point = PointOf(total, item_.row.random);
    if (point < before || point >= before + Kept(mine, ties_before, cut, tie)) return;

    for (int first = begin; first < end; first += 32) {
      const int token = first + lane;
      const uint32_t distance = token < end ? Distance(token) : kDistanceLimit;
      const bool at_cut = token < end && distance == cut.distance;
      const unsigned at_cuts = __ballot_sync(kAllLanes, at_cut);
      const bool tie_kept = at_cut && ties_before + __popc(at_cuts & ((1u << lane) - 1)) < cut.ties;
      const uint64_t through = before + WarpSumThrough(distance < cut.distance || tie_kept ? kept(distance) : 0);
      const unsigned passed = __ballot_sync(kAllLanes, through > point);
      if (passed != 0) {
        if (lane == __ffs(passed) - 1) write(token);
        return;
      }
      before = __shfl_sync(kAllLanes, through, 31);
      ties_before += __popc(at_cuts);
    }
  }

  const SampleItem& item_;
  const int vocab_;
  Shared& shared_;
  RowTeam team_;
  float best_ = 0, scale_ = 0;
};

template <int kBlocks, int kThreads>
__global__ void __launch_bounds__(kThreads)
    SampleKernel(const SampleItem* items, int vocab, SampledToken* tokens, TokenLogprob* top, int64_t top_stride) {
  using RowSampler = Sampler<kBlocks, kThreads>;
  __shared__ typename RowSampler::Shared shared;
  const int row = blockIdx.x / kBlocks;
  const SampleItem item = items[row];
  RowSampler sampler(item, vocab, shared);
  if (item.row.logprobs < 0) {
    sampler.Sample([&](int token) { tokens[row] = {token, 0}; });
  } else {
    const auto total = sampler.Total();
    const int likeliest = min(min(item.row.logprobs, vocab), static_cast<int>(top_stride));
    uint64_t order = total.likeliest;
    for (int i = 0; i < likeliest; ++i) {
      if (i > 0) order = sampler.LikeliestBelow(item.logits, order);
      const int token = TokenOf(order);
      if (RowSampler::RowTeam::rank() == 0 && threadIdx.x == 0) {
        top[row * top_stride + i] = {token, total.Logprob(item.logits[token])};
      }
    }
    sampler.Sample([&](int token) { tokens[row] = {token, total.Logprob(item.logits[token])}; });
  }
  RowSampler::RowTeam::Sync();
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

template <int kBlocks, int kThreads>
cudaError_t Launch(const SampleItem* items, int64_t count, int64_t vocab, SampledToken* tokens, TokenLogprob* top,
                   int64_t top_stride, cudaStream_t stream) {
  cudaLaunchAttribute team = {};
  team.id = cudaLaunchAttributeClusterDimension;
  team.val.clusterDim.x = kBlocks;
  team.val.clusterDim.y = team.val.clusterDim.z = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = static_cast<unsigned>(count * kBlocks);
  config.blockDim = kThreads;
  config.stream = stream;
  config.attrs = &team;
  config.numAttrs = kBlocks > 1 ? 1 : 0;
  return cudaLaunchKernelEx(&config, SampleKernel<kBlocks, kThreads>, items, static_cast<int>(vocab), tokens, top,
                            top_stride);
}

}  // namespace

cudaError_t EditLogits(const LogitEdit* edits, int64_t count, float* logits, int64_t stride, cudaStream_t stream) {
  const auto blocks = static_cast<unsigned>((count + kEditThreads - 1) / kEditThreads);
  EditKernel<<<blocks, kEditThreads, 0, stream>>>(edits, count, logits, stride);
  return cudaGetLastError();
}

cudaError_t SampleTokens(const SampleItem* items, int64_t count, int64_t vocab, SampledToken* tokens, TokenLogprob* top,
                         int64_t top_stride, Arch arch, cudaStream_t stream) {
  return arch == Arch::kSm90a ? Launch<8, 512>(items, count, vocab, tokens, top, top_stride, stream)
                              : Launch<1, 1024>(items, count, vocab, tokens, top, top_stride, stream);
}

}  // namespace salamander::kernels::cuda
