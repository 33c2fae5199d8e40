// Stage 1 of a single token (a decode step). Gives the same bits as select.h does for the token in a tile.
//
// With one token the lanes are windows: pieces of a tier are transposed, which costs as much as the product of four
// heads, but then every lane works.
#ifndef SALAMANDER_KERNELS_CPU_BODY_SELECT_TOKEN_H_
#define SALAMANDER_KERNELS_CPU_BODY_SELECT_TOKEN_H_

#include <cstdint>

#include "kernels/cpu/body/gemm.h"
#include "kernels/cpu/body/math.h"
#include "kernels/cpu/body/select.h"
#include "kernels/cpu/body/transpose.h"
#include "kernels/cpu/kernel_table.h"

namespace salamander::kernels::body {

// Scratch of a token: its queries, and one piece of a tier.
struct TokenScratch {
  float* queries;   // [group][dim], scaled to exponents of 2
  float* windows;   // [dim][64]
  float* products;  // [group][64]
  float* scores;    // [64]
  float* log_sums;  // [group]
};

template <class V>
TokenScratch StartToken(const SelectTask& task, float* scratch) {
  const int64_t dim = task.kv.dim, group = task.group;
  TokenScratch token;
  token.windows = scratch;
  token.queries = token.windows + dim * kPageWindows;
  token.products = token.queries + group * dim;
  token.scores = token.products + group * kPageWindows;
  token.log_sums = token.scores + kPageWindows;
  const auto scale = V::Set(QueryScale<V>(dim));
  for (int64_t i = 0; i < group * dim; i += V::kLanes) V::Store(token.queries + i, V::Load(task.q.data + i) * scale);
  return token;
}

// products [group][64] of the queries with `count` rows of a tier. Lanes from count up to whole vectors hold zeros.
template <class V>
void TokenProducts(const SelectTask& task, const TokenScratch& token, const float* rows, int64_t count) {
  const int64_t dim = task.kv.dim, padded = (count + V::kLanes - 1) / V::kLanes * V::kLanes;
  TransposeRows<V>([&](int64_t j) { return rows + j * dim; }, count, padded, dim, 1, token.windows, kPageWindows);
  Gemm<V>(task.group, padded, dim, {token.queries, dim, 1}, token.windows, kPageWindows, token.products, kPageWindows);
}

template <class V>
void TokenCoarse(const SelectTask& task, int64_t page_begin, int64_t page_end, float* most, float* sum,
                 float* scratch) {
  const TokenScratch token = StartToken<V>(task, scratch);
  const int64_t visible = Visible<V>(task.position, 64);
  for (int64_t h = 0; h < task.group; ++h) {
    most[h] = kLowest;
    sum[h] = 0;
  }
  for (int64_t page = page_begin; page < page_end; ++page) {
    const int64_t first = page * kPageBlocks;
    const int64_t count = visible - first < kPageBlocks ? visible - first : kPageBlocks;
    if (count <= 0) break;
    TokenProducts<V>(task, token, reinterpret_cast<const float*>(task.kv.pages[page] + task.kv.k2), count);
    for (int64_t h = 0; h < task.group; ++h) {
      float* terms = token.products + h * kPageWindows;
      float top = most[h];
      for (int64_t j = 0; j < count; ++j) top = terms[j] > top ? terms[j] : top;
      const auto factor = Exp2<V>(V::Set(most[h] - top));
      for (int64_t j = 0; j < count; j += V::kLanes) V::Store(terms + j, Exp2<V>(V::Load(terms + j) - V::Set(top)));
      float total = sum[h] * factor[0];
      for (int64_t j = 0; j < count; ++j) total += terms[j];
      most[h] = top;
      sum[h] = total;
    }
  }
}

// The values of blocks [block_begin, block_end).
template <class V>
void TokenValues(const SelectTask& task, const float* most, const float* sum, int64_t block_begin, int64_t block_end,
                 float* values, float* scratch) {
  const TokenScratch token = StartToken<V>(task, scratch);
  LogSums<V>(task.group, most, sum, token.log_sums);
  float value = 0;
  WalkWindows<V>(
      block_begin, block_end, kPageWindows, Visible<V>(task.position, 16),
      [&](int64_t first, int64_t count) {
        const auto* k1 = reinterpret_cast<const float*>(task.kv.pages[first / kPageWindows] + task.kv.k1);
        TokenProducts<V>(task, token, k1 + first % kPageWindows * task.kv.dim, count);
        for (int64_t j = 0; j < count; j += V::kLanes) {
          auto score = V::Set(0);
          for (int64_t h = 0; h < task.group; ++h) {
            score = score + Exp2<V>(V::Load(token.products + h * kPageWindows + j) - V::Set(token.log_sums[h]));
          }
          V::Store(token.scores + j, score);
        }
      },
      [&](int64_t i, int64_t) { value = token.scores[i] > value ? token.scores[i] : value; },
      [&](int64_t block, int64_t i) {
        if (block >= block_begin) values[block - block_begin] = value;
        value = token.scores[i];
      });
}

}  // namespace salamander::kernels::body

#endif  // SALAMANDER_KERNELS_CPU_BODY_SELECT_TOKEN_H_
