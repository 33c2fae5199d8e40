#include "kernels/cpu/sample.h"

#include <cmath>
#include <numeric>
#include <optional>

namespace salamander::kernels {
namespace {

using Distances = std::vector<uint32_t>;

// Where the sum of `amount` over distances below the cut's, nearest first, reaches target(sum of all). None if it does
// not. `rest` is what the last distance has to give.
struct CutPoint {
  uint32_t distance = 0;
  uint64_t rest = 0;
};
template <typename Amount, typename Target>
std::optional<CutPoint> FindCut(const Distances& distances, uint32_t below, Amount amount, Target target_of) {
  CutPoint point;
  std::vector<uint64_t> bins(kCutBins);
  for (int number = 0; number < kCutLevels; ++number) {
    const CutLevel level = CutLevelOf(number);
    std::fill(bins.begin(), bins.end(), 0);
    const bool first = number == 0;
    for (const uint32_t distance : distances) {
      if (distance >= below || (!first && distance >> (level.shift + level.bits) != point.distance)) continue;
      bins[(distance >> level.shift) & ((1u << level.bits) - 1)] += amount(distance);
    }
    if (first) {
      const uint64_t total = std::accumulate(bins.begin(), bins.end(), uint64_t{0});
      point.rest = target_of(total);
      if (point.rest > total) return std::nullopt;
    }
    uint32_t bin = 0;
    while (bins[bin] < point.rest) point.rest -= bins[bin++];
    point.distance = point.distance << level.bits | bin;
  }
  return point;
}

Cut CutOf(const Distances& distances, const SampleRow& row) {
  Cut cut;
  if (row.top_k > 0) {
    const auto point = FindCut(
        distances, cut.distance, [](uint32_t) { return uint64_t{1}; }, [&](uint64_t) { return uint64_t(row.top_k); });
    if (point.has_value()) cut = {point->distance, static_cast<uint32_t>(point->rest)};
  }
  if (row.top_p < 1) {
    const uint64_t tie = WeightOf(cut.distance);
    uint64_t beyond = 0;  // what the ties at the cut have to give, if what is nearer is too little
    const auto point = FindCut(distances, cut.distance, WeightOf, [&](uint64_t total) {
      const uint64_t target = std::max<uint64_t>(1, PartOf(total + cut.ties * tie, row.top_p));
      beyond = target > total ? target - total : 0;
      return target;
    });
    if (point.has_value()) {
      const uint64_t weight = WeightOf(point->distance);
      cut = {point->distance, static_cast<uint32_t>((point->rest + weight - 1) / weight)};
    } else {
      cut.ties = static_cast<uint32_t>((beyond + tie - 1) / tie);
    }
  }
  cut.least = PartOf(uint64_t{1} << kWeightBits, row.min_p);
  return cut;
}

int32_t Draw(const Distances& distances, const Cut& cut, uint64_t random) {
  // What `visit` gets: every token that is kept, in the order of ids, until it returns false.
  auto for_kept = [&](auto visit) {
    uint32_t ties = 0;
    for (size_t token = 0; token < distances.size(); ++token) {
      const uint32_t distance = distances[token];
      if (distance > cut.distance || (distance == cut.distance && ties++ >= cut.ties)) continue;
      const uint64_t weight = WeightOf(distance);
      if (weight >= cut.least && !visit(static_cast<int32_t>(token), weight)) return;
    }
  };
  uint64_t total = 0;
  for_kept([&](int32_t, uint64_t weight) { return total += weight, true; });
  const uint64_t point = PointOf(total, random);
  uint64_t sum = 0;
  int32_t drawn = 0;
  for_kept([&](int32_t token, uint64_t weight) { return drawn = token, sum += weight, sum <= point; });
  return drawn;
}

}  // namespace

int32_t SampleLogits(absl::Span<const float> logits, const SampleRow& row, absl::Span<const LogitEdit> edits) {
  std::vector<float> edited(logits.begin(), logits.end());
  for (const LogitEdit& edit : edits) {
    float& logit = edited[edit.token];
    logit = (logit > 0 ? logit / edit.factor : logit * edit.factor) + edit.added;
  }
  for (float& logit : edited) logit = Comparable(logit);
  const auto best = std::max_element(edited.begin(), edited.end());
  if (row.temperature == 0 || *best == kLowestLogit) return static_cast<int32_t>(best - edited.begin());

  const float scale = DistanceScale(row.temperature);
  Distances distances(edited.size());
  std::transform(edited.begin(), edited.end(), distances.begin(),
                 [&](float logit) { return DistanceOf(logit, *best, scale); });
  return Draw(distances, CutOf(distances, row), row.random);
}

float LogprobsOf(absl::Span<const float> logits, int32_t token, absl::Span<TokenLogprob> top) {
  float best = kLowestLogit;
  for (const float logit : logits) best = std::max(best, Comparable(logit));
  double sum = 0;
  for (const float logit : logits) sum += std::exp(static_cast<double>(Comparable(logit)) - best);
  const double log_total = best + std::log(sum);
  auto logprob = [&](int32_t id) {
    return best == kLowestLogit ? kLowestLogit : static_cast<float>(Comparable(logits[id]) - log_total);
  };

  std::vector<int32_t> ids(top.empty() ? 0 : logits.size());
  std::iota(ids.begin(), ids.end(), 0);
  std::partial_sort(ids.begin(), ids.begin() + static_cast<int64_t>(top.size()), ids.end(), [&](int32_t a, int32_t b) {
    const float x = Comparable(logits[a]), y = Comparable(logits[b]);
    return x > y || (x == y && a < b);
  });
  for (size_t i = 0; i < top.size(); ++i) top[i] = {ids[i], logprob(ids[i])};
  return logprob(token);
}

}  // namespace salamander::kernels
