// Draws that reach every way through a sampler, and what they must give: the definition of kernels/sampling.h, by
// sorting.
#ifndef SALAMANDER_TESTS_KERNELS_SAMPLE_CASES_H_
#define SALAMANDER_TESTS_KERNELS_SAMPLE_CASES_H_

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numeric>
#include <random>
#include <vector>

#include "kernels/sampling.h"
#include "tests/kernels/backend_fixture.h"

namespace salamander::kernels {

struct SampleCase {
  int64_t vocab = 0;
  std::vector<float> logits;  // [rows, vocab]
  std::vector<SampleRow> rows;
  std::vector<LogitEdit> edits;
};

// Rows of all options. Logits are normal, of few values, all alike, or no numbers here and there, by `kind`.
inline SampleCase MakeSampleCase(int64_t vocab, int kind) {
  SampleCase made{.vocab = vocab};
  std::mt19937_64 random(kind * 1000 + vocab);
  for (const float temperature : {0.0f, 0.7f, 1.0f, 3.0f}) {
    for (const int32_t top_k : {0, 1, 40, 5000}) {
      for (const float top_p : {1.0f, 0.9f, 0.3f}) {
        for (const float min_p : {0.0f, 0.05f}) {
          made.rows.push_back(
              {temperature, top_k, top_p, min_p, random() >> 11, static_cast<int32_t>(made.rows.size() % 4) * 3 - 1});
        }
      }
    }
  }
  const auto rows = static_cast<int64_t>(made.rows.size());
  made.logits = Random(rows * vocab, kind, 3);
  for (float& logit : made.logits) {
    if (kind == 1) logit = std::round(logit);
    if (kind == 2) logit = 0.25f;
    if (kind == 3 && random() % 8 == 0) logit = std::numeric_limits<float>::quiet_NaN();
    if (kind == 3 && random() % 8 == 0) logit = -std::numeric_limits<float>::infinity();
  }
  // Every third row has edits, a few or one of every token.
  for (int32_t row = 0; row < rows; row += 3) {
    const int64_t step = row % 2 == 0 ? 1 : 7;
    for (int32_t token = 0; token < vocab; token += static_cast<int32_t>(step)) {
      made.edits.push_back({row, token, 1.3f, 0.1f * static_cast<float>(token % 5)});
    }
  }
  return made;
}

// What the row must draw.
inline int32_t DrawBySorting(const SampleCase& from, int32_t row) {
  std::vector<float> logits(from.logits.begin() + row * from.vocab, from.logits.begin() + (row + 1) * from.vocab);
  for (const LogitEdit& edit : from.edits) {
    if (edit.row != row) continue;
    float& logit = logits[edit.token];
    logit = (logit > 0 ? logit / edit.factor : logit * edit.factor) + edit.added;
  }
  for (float& logit : logits) logit = Comparable(logit);
  const SampleRow& options = from.rows[row];
  const float best = *std::max_element(logits.begin(), logits.end());
  if (options.temperature == 0) {
    return static_cast<int32_t>(std::find(logits.begin(), logits.end(), best) - logits.begin());
  }
  std::vector<uint32_t> distances;
  for (const float logit : logits) distances.push_back(DistanceOf(logit, best, DistanceScale(options.temperature)));
  auto sum_of = [&](const std::vector<int32_t>& ids) {
    uint64_t sum = 0;
    for (const int32_t id : ids) sum += WeightOf(distances[id]);
    return sum;
  };

  std::vector<int32_t> kept;
  for (size_t id = 0; id < distances.size(); ++id) {
    if (distances[id] < kDistanceLimit) kept.push_back(static_cast<int32_t>(id));
  }
  std::stable_sort(kept.begin(), kept.end(), [&](int32_t a, int32_t b) { return distances[a] < distances[b]; });
  if (options.top_k > 0) kept.resize(std::min<size_t>(kept.size(), options.top_k));
  if (options.top_p < 1) {
    const double target = static_cast<double>(options.top_p) * static_cast<double>(sum_of(kept));
    double sum = 0;
    size_t count = 0;
    while (sum < target) sum += static_cast<double>(WeightOf(distances[kept[count++]]));
    kept.resize(count);
  }
  std::erase_if(kept, [&](int32_t id) {
    return static_cast<double>(WeightOf(distances[id])) < static_cast<double>(options.min_p) * std::exp2(kWeightBits);
  });
  std::sort(kept.begin(), kept.end());
  const long double point =
      static_cast<long double>(sum_of(kept)) * static_cast<long double>(options.random) * 0x1p-53L;
  uint64_t sum = 0;
  for (const int32_t id : kept) {
    sum += WeightOf(distances[id]);
    if (static_cast<long double>(sum) > std::floor(point)) return id;
  }
  return -1;
}

}  // namespace salamander::kernels

#endif  // SALAMANDER_TESTS_KERNELS_SAMPLE_CASES_H_
