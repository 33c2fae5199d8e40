// Tiers for tests and benches of stage 1: random K1 and K2 windows in pages, and float64 scores of them.
#ifndef SALAMANDER_TESTS_KERNELS_CUDA_SELECT_CONTEXT_H_
#define SALAMANDER_TESTS_KERNELS_CUDA_SELECT_CONTEXT_H_

#include <algorithm>
#include <cmath>
#include <memory>
#include <random>
#include <vector>

#include "tests/kernels/cuda/device.h"

namespace salamander::kernels::cuda {

struct SelectShape {
  int64_t heads, kv_heads, dim;
  int64_t init = 1, local = 2, topk = 4;

  int64_t top_blocks() const { return topk + local; }
  int64_t group() const { return heads / kv_heads; }
  KvLayout kv() const { return {kv_heads, dim, DType::kBFloat16}; }
};

// Normally distributed, as bf16 keeps them.
inline std::vector<float> RandomBf16(int64_t count, uint32_t seed, float scale = 1) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal(0, scale);
  std::vector<float> out(count);
  for (float& x : out) x = normal(generator);
  return Rounded(out);
}

// The tiers of one sequence, on the host as float [kv head][window][dim] and in pages on the device.
class TierContext {
 public:
  TierContext(const SelectShape& shape, int64_t tokens, uint32_t seed)
      : shape_(shape),
        tokens_(tokens),
        k1_(RandomBf16(shape.kv_heads * K1Count(tokens) * shape.dim, seed)),
        k2_(RandomBf16(shape.kv_heads * K2Count(tokens) * shape.dim, seed + 1)) {}

  std::vector<float>& mutable_k1() { return k1_; }
  std::vector<float>& mutable_k2() { return k2_; }
  const float* k1(int64_t head, int64_t window) const { return &k1_[(head * K1Count(tokens_) + window) * shape_.dim]; }
  const float* k2(int64_t head, int64_t window) const { return &k2_[(head * K2Count(tokens_) + window) * shape_.dim]; }

  // Device array of pages. All that is no whole window is NaN: what was never written must never matter.
  std::byte* const* pages() {
    if (page_table_ != nullptr) return page_table_->data();
    const KvLayout kv = shape_.kv();
    const int64_t pages = (tokens_ + kPageTokens - 1) / kPageTokens;
    std::vector<std::byte> bytes(pages * kv.page_bytes(), std::byte{0xff});
    for (int64_t g = 0; g < shape_.kv_heads; ++g) {
      for (int64_t j = 0; j < K1Count(tokens_); ++j) {
        Put(&bytes[j / kPageK1 * kv.page_bytes() + kv.k1(g, j % kPageK1)], k1(g, j));
      }
      for (int64_t j = 0; j < K2Count(tokens_); ++j) {
        Put(&bytes[j / kPageK2 * kv.page_bytes() + kv.k2(g, j % kPageK2)], k2(g, j));
      }
    }
    memory_ = std::make_unique<DeviceArray<std::byte>>(bytes);
    std::vector<std::byte*> table;
    for (int64_t page = 0; page < pages; ++page) table.push_back(memory_->data() + page * kv.page_bytes());
    page_table_ = std::make_unique<DeviceArray<std::byte*>>(table);
    return page_table_->data();
  }

 private:
  void Put(std::byte* to, const float* window) const {
    for (int64_t i = 0; i < shape_.dim; ++i) {
      const bf16 value = __float2bfloat16(window[i]);
      std::memcpy(to + 2 * i, &value, 2);
    }
  }

  SelectShape shape_;
  int64_t tokens_;
  std::vector<float> k1_, k2_;
  std::unique_ptr<DeviceArray<std::byte>> memory_;
  std::unique_ptr<DeviceArray<std::byte*>> page_table_;
};

// What the model chooses for one token and key/value head, from its equations.
struct ExpectedChoice {
  std::vector<double> values;  // of blocks up to the token's own
  std::vector<int32_t> picks;  // ascending
};
inline ExpectedChoice ChooseFromTiers(const SelectShape& shape, const TierContext& context, const float* q,
                                      int64_t head, int64_t position) {
  const int64_t own = position / kBlockTokens, fine = K1Count(position + 1), coarse = K2Count(position + 1);
  const double scale = 1 / std::sqrt(static_cast<double>(shape.dim));
  std::vector<double> scores(fine, 0.0), products(std::max(fine, coarse));
  for (int64_t h = head * shape.group(); h < (head + 1) * shape.group() && coarse > 0; ++h) {
    auto dot = [&](const float* window) {
      double sum = 0;
      for (int64_t i = 0; i < shape.dim; ++i) sum += static_cast<double>(q[h * shape.dim + i]) * window[i];
      return sum * scale;
    };
    double most = -INFINITY, sum = 0;
    for (int64_t j = 0; j < coarse; ++j) most = std::max(most, products[j] = dot(context.k2(head, j)));
    for (int64_t j = 0; j < coarse; ++j) sum += std::exp(products[j] - most);
    for (int64_t j = 0; j < fine; ++j) scores[j] += std::exp(dot(context.k1(head, j)) - most) / sum;
  }
  ExpectedChoice choice;
  std::vector<int32_t> order;
  for (int64_t b = 0; b <= own; ++b) {
    double value = 0;
    for (int64_t j = std::max<int64_t>(0, 4 * b - 1); j < std::min(4 * b + 4, fine); ++j) {
      value = std::max(value, scores[j]);
    }
    if (b < shape.init || b >= own - shape.local) value = INFINITY;
    choice.values.push_back(value);
    order.push_back(static_cast<int32_t>(b));
  }
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return choice.values[a] > choice.values[b]; });
  order.resize(std::min<int64_t>(shape.top_blocks(), own + 1));
  std::sort(order.begin(), order.end());
  choice.picks = order;
  return choice;
}

}  // namespace salamander::kernels::cuda

#endif  // SALAMANDER_TESTS_KERNELS_CUDA_SELECT_CONTEXT_H_
