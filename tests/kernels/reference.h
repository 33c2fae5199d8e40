// The plainest float64 forms of what the kernels compute, written from the model's equations.
#ifndef SALAMANDER_TESTS_KERNELS_REFERENCE_H_
#define SALAMANDER_TESTS_KERNELS_REFERENCE_H_

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <vector>

#include "kernels/kv_layout.h"
#include "kernels/ops.h"

namespace salamander::kernels::reference {

using Vector = std::vector<double>;
// Keys or values of one head: token to its `head_dim` numbers.
using TokenVectors = std::function<const float*(int64_t)>;

inline double Sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

inline Vector RmsNorm(const float* x, int64_t n, const float* weight, double eps) {
  double squares = 0;
  for (int64_t i = 0; i < n; ++i) squares += static_cast<double>(x[i]) * x[i];
  Vector out(n);
  for (int64_t i = 0; i < n; ++i) out[i] = x[i] / std::sqrt(squares / n + eps) * weight[i];
  return out;
}

// Halves rotated.
inline Vector Rope(const Vector& x, int64_t position, double theta) {
  const int64_t half = x.size() / 2;
  Vector out(x.size());
  for (int64_t i = 0; i < half; ++i) {
    const double angle = position * std::pow(theta, -2.0 * i / x.size());
    out[i] = x[i] * std::cos(angle) - x[half + i] * std::sin(angle);
    out[half + i] = x[half + i] * std::cos(angle) + x[i] * std::sin(angle);
  }
  return out;
}

inline double Dot(const float* a, const float* b, int64_t n) {
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += static_cast<double>(a[i]) * b[i];
  return sum;
}

inline Vector Mean(const TokenVectors& keys, int64_t first, int64_t count, int64_t dim) {
  Vector out(dim);
  for (int64_t t = first; t < first + count; ++t) {
    for (int64_t i = 0; i < dim; ++i) out[i] += keys(t)[i] / static_cast<double>(count);
  }
  return out;
}

// Causal softmax attention of one query head over `tokens`.
inline Vector Attend(const float* q, const TokenVectors& keys, const TokenVectors& values,
                     const std::vector<int64_t>& tokens, int64_t dim) {
  Vector scores, out(dim);
  double most = -std::numeric_limits<double>::infinity(), sum = 0;
  for (int64_t t : tokens) {
    scores.push_back(Dot(q, keys(t), dim) / std::sqrt(static_cast<double>(dim)));
    most = std::max(most, scores.back());
  }
  for (size_t i = 0; i < tokens.size(); ++i) {
    const double p = std::exp(scores[i] - most);
    sum += p;
    for (int64_t c = 0; c < dim; ++c) out[c] += p * values(tokens[i])[c];
  }
  for (double& x : out) x /= sum;
  return out;
}

struct Choice {
  Vector values;               // of every block of the sequence
  std::vector<int32_t> picks;  // ascending
};

// Stage 1 of the token at `position` of a sequence of `tokens`, for the query heads of one key/value head, exactly as
// the model defines it: all blocks of the sequence compete, later ones are dropped afterwards.
inline Choice ChooseBlocks(const SparseShape& shape, const std::vector<const float*>& queries, const TokenVectors& keys,
                           int64_t position, int64_t tokens) {
  const int64_t dim = shape.kv.head_dim, own = position / kBlockTokens;
  const int64_t blocks = (tokens + kBlockTokens - 1) / kBlockTokens, windows = K1Count(tokens);
  const int64_t fine = K1Count(position + 1), coarse = K2Count(position + 1);
  auto score_of = [&](const float* q, int64_t first, int64_t count) {
    const Vector mean = Mean(keys, first, count, dim);
    double sum = 0;
    for (int64_t i = 0; i < dim; ++i) sum += q[i] * mean[i];
    return sum / std::sqrt(static_cast<double>(dim));
  };
  Vector scores(windows);
  for (const float* q : queries) {
    double sum = 0;
    for (int64_t j = 0; j < coarse; ++j) sum += std::exp(score_of(q, j * kK2Stride, kK2Window));
    for (int64_t j = 0; coarse > 0 && j < fine; ++j) {
      scores[j] += std::exp(score_of(q, j * kK1Stride, kK1Window) - std::log(sum));
    }
  }
  Choice choice;
  std::vector<int32_t> order;
  for (int64_t b = 0; b < blocks; ++b) {
    double value = -std::numeric_limits<double>::infinity();
    for (int64_t j = std::max<int64_t>(0, 4 * b - 1); j < std::min(4 * b + 4, windows); ++j) {
      value = std::max(value, scores[j]);
    }
    if (b < shape.init_blocks || (own - shape.local_blocks <= b && b <= own)) {
      value = std::numeric_limits<double>::infinity();
    }
    choice.values.push_back(value);
    order.push_back(b);
  }
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return choice.values[a] > choice.values[b]; });
  order.resize(std::min<int64_t>(shape.top_blocks, blocks));
  for (int32_t b : order) {
    if (b <= own) choice.picks.push_back(b);
  }
  std::sort(choice.picks.begin(), choice.picks.end());
  return choice;
}

}  // namespace salamander::kernels::reference

#endif  // SALAMANDER_TESTS_KERNELS_REFERENCE_H_
