#include "common/engine/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/engine/philox.h"

namespace salamander::engine {
namespace {

constexpr float kLowest = -std::numeric_limits<float>::infinity();

// What can take part in comparisons and differences: no NaN, no +inf.
float Comparable(float logit) {
  return std::isnan(logit) ? kLowest : std::min(logit, std::numeric_limits<float>::max());
}

absl::Status OutOfRange(std::string_view field, std::string_view limit, double value) {
  return absl::InvalidArgumentError(absl::StrCat(std::string(field), " must be ", std::string(limit), ", got ", value));
}

struct Candidate {
  int32_t token;
  double weight;  // exp((logit - best logit) / temperature)
};

bool Likelier(const Candidate& a, const Candidate& b) {
  return a.weight > b.weight || (a.weight == b.weight && a.token < b.token);
}

std::vector<float> AdjustLogits(absl::Span<const float> logits, const SamplingParams& params,
                                const TokenHistory& history) {
  std::vector<float> adjusted(logits.begin(), logits.end());
  auto repeat = [&](int32_t token) {
    float& logit = adjusted[token];
    logit = logit > 0 ? logit / params.repetition_penalty : logit * params.repetition_penalty;
  };
  if (params.repetition_penalty != 1) {
    for (const auto& [token, count] : history.output_counts) repeat(token);
    for (const auto& [token, count] : history.prompt_counts) {
      if (!history.output_counts.contains(token)) repeat(token);
    }
  }
  for (const auto& [token, count] : history.output_counts) {
    adjusted[token] -= params.presence_penalty + params.frequency_penalty * static_cast<float>(count);
  }
  for (const auto& [token, bias] : params.logit_bias) adjusted[token] += bias;
  for (float& logit : adjusted) logit = Comparable(logit);
  return adjusted;
}

// The `count` likeliest first, in order; the rest behind them in any order.
void SortLikeliest(std::vector<Candidate>& candidates, size_t count) {
  if (count < candidates.size()) {
    std::nth_element(candidates.begin(), candidates.begin() + count, candidates.end(), Likelier);
  }
  std::sort(candidates.begin(), candidates.begin() + std::min(count, candidates.size()), Likelier);
}

double TotalWeight(const std::vector<Candidate>& candidates) {
  return std::accumulate(candidates.begin(), candidates.end(), 0.0,
                         [](double sum, const Candidate& candidate) { return sum + candidate.weight; });
}

// Keeps the fewest likeliest candidates that weigh `mass` together, likeliest first. Sorts only as far as it must.
void KeepNucleus(std::vector<Candidate>& candidates, double mass) {
  // All that are dropped here weigh less than total - mass together.
  const double floor = (TotalWeight(candidates) - mass) / static_cast<double>(candidates.size());
  std::erase_if(candidates, [&](const Candidate& candidate) { return candidate.weight < floor; });
  for (size_t sorted = 64;; sorted *= 8) {
    SortLikeliest(candidates, sorted);
    double sum = 0;
    for (size_t i = 0; i < std::min(sorted, candidates.size()); ++i) {
      sum += candidates[i].weight;
      if (sum < mass) continue;
      candidates.resize(i + 1);
      return;
    }
    if (sorted >= candidates.size()) return;
  }
}

int32_t Draw(const std::vector<Candidate>& candidates, double uniform) {
  const double target = uniform * TotalWeight(candidates);
  double sum = 0;
  for (const Candidate& candidate : candidates) {
    sum += candidate.weight;
    if (sum > target) return candidate.token;
  }
  return candidates.front().token;  // Rounding: `uniform` is below 1, so the sum passes the target but for that.
}

}  // namespace

absl::Status CheckSamplingParams(const SamplingParams& params, int64_t vocab_size) {
  // Written so that NaN fails every comparison.
  if (!(params.temperature >= 0)) return OutOfRange("temperature", "≥ 0", params.temperature);
  if (std::isinf(params.temperature)) return OutOfRange("temperature", "finite", params.temperature);
  if (!(params.top_p > 0 && params.top_p <= 1)) return OutOfRange("top_p", "in (0, 1]", params.top_p);
  if (params.top_k < 0) return OutOfRange("top_k", "≥ 0", params.top_k);
  if (!(params.min_p >= 0 && params.min_p <= 1)) return OutOfRange("min_p", "in [0, 1]", params.min_p);
  if (!(params.repetition_penalty > 0)) return OutOfRange("repetition_penalty", "> 0", params.repetition_penalty);
  if (std::isinf(params.repetition_penalty)) {
    return OutOfRange("repetition_penalty", "finite", params.repetition_penalty);
  }
  if (!(std::fabs(params.presence_penalty) <= 2)) {
    return OutOfRange("presence_penalty", "in [-2, 2]", params.presence_penalty);
  }
  if (!(std::fabs(params.frequency_penalty) <= 2)) {
    return OutOfRange("frequency_penalty", "in [-2, 2]", params.frequency_penalty);
  }
  for (const auto& [token, bias] : params.logit_bias) {
    if (token < 0 || token >= vocab_size) {
      return OutOfRange("token id of logit_bias", absl::StrCat("in [0, ", vocab_size, ")"), token);
    }
    if (!(std::fabs(bias) <= 100)) {
      return OutOfRange(absl::StrCat("logit_bias of token ", token), "in [-100, 100]", bias);
    }
  }
  return absl::OkStatus();
}

int32_t SampleToken(absl::Span<const float> logits, const SamplingParams& params, const TokenHistory& history,
                    int64_t position) {
  const std::vector<float> adjusted = AdjustLogits(logits, params, history);
  const auto best = std::max_element(adjusted.begin(), adjusted.end());
  const auto best_token = static_cast<int32_t>(best - adjusted.begin());
  if (params.temperature == 0 || *best == kLowest) return best_token;

  std::vector<Candidate> candidates;
  candidates.reserve(adjusted.size());
  for (size_t i = 0; i < adjusted.size(); ++i) {
    // In double: neither the difference of finite floats nor its quotient can become NaN.
    const double weight = std::exp((static_cast<double>(adjusted[i]) - *best) / params.temperature);
    if (weight > 0) candidates.push_back({static_cast<int32_t>(i), weight});
  }
  if (params.top_k > 0 && static_cast<size_t>(params.top_k) < candidates.size()) {
    SortLikeliest(candidates, params.top_k);
    candidates.resize(params.top_k);
  }
  if (params.top_p < 1) KeepNucleus(candidates, params.top_p * TotalWeight(candidates));
  if (params.min_p > 0) {
    std::erase_if(candidates, [&](const Candidate& candidate) { return candidate.weight < params.min_p; });
  }
  return Draw(candidates, UniformAt(params.seed, position));
}

TokenLogprobs ComputeLogprobs(absl::Span<const float> logits, int32_t token, int top) {
  float best = kLowest;
  for (const float logit : logits) best = std::max(best, Comparable(logit));
  double sum = 0;
  for (const float logit : logits) sum += std::exp(static_cast<double>(Comparable(logit)) - best);
  const double log_total = best + std::log(sum);
  auto logprob = [&](int32_t id) { return static_cast<float>(Comparable(logits[id]) - log_total); };

  TokenLogprobs result;
  result.chosen = logprob(token);
  std::vector<int32_t> ids(top > 0 ? logits.size() : 0);
  std::iota(ids.begin(), ids.end(), 0);
  const size_t count = std::min(ids.size(), static_cast<size_t>(std::max(top, 0)));
  std::partial_sort(ids.begin(), ids.begin() + count, ids.end(), [&](int32_t a, int32_t b) {
    const float x = Comparable(logits[a]), y = Comparable(logits[b]);
    return x > y || (x == y && a < b);
  });
  for (size_t i = 0; i < count; ++i) result.top.emplace_back(ids[i], logprob(ids[i]));
  return result;
}

}  // namespace salamander::engine
