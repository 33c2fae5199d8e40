// Stage 1 of InfLLM-V2 (arXiv 2509.24663): log-sum-exp of the queries over the coarse tier K2, then scores over the
// fine tier K1, summed over the heads of a group and pooled to blocks.
//
// Both are dense products, tier rows times packed queries, with tier rows read in place and queries as lanes. So
// maxima, sums and exponentials go lane by lane and nothing is ever summed across a vector. At most 32 windows times 64
// columns of scores exist at a time.
#ifndef SALAMANDER_KERNELS_CPU_BODY_SELECT_H_
#define SALAMANDER_KERNELS_CPU_BODY_SELECT_H_

#include <cstdint>

#include "kernels/cpu/body/gemm.h"
#include "kernels/cpu/body/math.h"
#include "kernels/cpu/body/transpose.h"
#include "kernels/cpu/kernel_table.h"

namespace salamander::kernels::body {

inline constexpr int64_t kPanel = 64;        // columns of a panel of packed queries
inline constexpr int64_t kPageBlocks = 16;   // blocks and K2 windows of a page
inline constexpr int64_t kPageWindows = 64;  // K1 windows of a page
inline constexpr int64_t kWindowStep = 32;   // K1 windows scored at a time
inline constexpr float kLowest = -1e30f;     // below every score, and finite: differences stay numbers

template <class V>
int64_t Columns(const SelectTask& task) {
  return task.group * kSelectTokens;
}

// Scores times this are exponents of 2.
template <class V>
float QueryScale(int64_t dim) {
  return kLog2E / __builtin_sqrtf(static_cast<float>(dim));
}

// Windows of `stride`, twice as long, that the query at `position` sees.
template <class V>
int64_t Visible(int64_t position, int64_t stride) {
  const int64_t count = (position + 1) / stride - 1;
  return count > 0 ? count : 0;
}

template <class V>
void SelectPack(const SelectTask& task, float* packed) {
  const int64_t columns = Columns<V>(task), dim = task.kv.dim;
  const float scale = QueryScale<V>(dim);
  for (int64_t col = 0; col < columns; col += kPanel) {
    const int64_t width = columns - col < kPanel ? columns - col : kPanel;
    float* panel = packed + col * dim;
    for (int64_t c = 0; c < width; c += kSelectTokens) {
      const float* q = task.q.data + (col + c) / kSelectTokens * dim;
      TransposeRows<V>([&](int64_t r) { return q + r * task.q.stride; }, task.rows, kSelectTokens, dim, scale,
                       panel + c, width);
    }
  }
}

// For each token of a tile, how many windows it sees; windows from `least` on are hidden from some.
template <class V>
struct Visibility {
  Visibility(const SelectTask& task, int64_t stride) {
    least = Visible<V>(task.position, stride);
    most = Visible<V>(task.position + task.rows - 1, stride);
    for (int64_t r = 0; r < kSelectTokens; ++r) {
      const int64_t row = r < task.rows ? r : task.rows - 1;
      limit[r] = static_cast<float>(Visible<V>(task.position + row, stride));
    }
  }
  // `otherwise` in the lanes, tokens from column `col` on, that do not see `window`.
  typename V::Float Hide(int64_t window, int64_t col, typename V::Float score, float otherwise) const {
    if (window < least) return score;
    return V::IfLess(V::Set(static_cast<float>(window)), V::Load(limit + col % kSelectTokens), score,
                     V::Set(otherwise));
  }
  int64_t least, most;
  float limit[kSelectTokens];
};

// Adds `count` windows, scored in [count][width] from window `first` on, to the maximum and sum of one vector of
// columns.
template <class V>
void AddToLogSum(const Visibility<V>& visibility, int64_t first, int64_t count, const float* scores, int64_t width,
                 int64_t col, float* most, float* sum) {
  const auto before = V::Load(most);
  auto top = before;
  for (int64_t j = 0; j < count; ++j) {
    top = V::Max(top, visibility.Hide(first + j, col, V::Load(scores + j * width), kLowest));
  }
  auto total = V::Load(sum) * Exp2<V>(before - top);
  for (int64_t j = 0; j < count; ++j) {
    const auto term = Exp2<V>(V::Load(scores + j * width) - top);
    total = total + visibility.Hide(first + j, col, term, 0);
  }
  V::Store(most, top);
  V::Store(sum, total);
}

template <class V>
void SelectCoarse(const SelectTask& task, const float* packed, int64_t page_begin, int64_t page_end, float* most,
                  float* sum, float* scratch) {
  const int64_t columns = Columns<V>(task), dim = task.kv.dim;
  const Visibility<V> visibility(task, 64);
  for (int64_t c = 0; c < columns; c += V::kLanes) {
    V::Store(most + c, V::Set(kLowest));
    V::Store(sum + c, V::Set(0));
  }
  for (int64_t page = page_begin; page < page_end; ++page) {
    const int64_t first = page * kPageBlocks;
    const int64_t count = visibility.most - first < kPageBlocks ? visibility.most - first : kPageBlocks;
    if (count <= 0) break;
    const float* k2 = reinterpret_cast<const float*>(task.kv.pages[page] + task.kv.k2);
    for (int64_t col = 0; col < columns; col += kPanel) {
      const int64_t width = columns - col < kPanel ? columns - col : kPanel;
      Gemm<V>(count, width, dim, {k2, dim, 1}, packed + col * dim, width, scratch, width);
      for (int64_t c = 0; c < width; c += V::kLanes) {
        AddToLogSum<V>(visibility, first, count, scratch + c, width, c, most + col + c, sum + col + c);
      }
    }
  }
}

template <class V>
void SelectCombine(int64_t columns, const float* range_most, const float* range_sum, float* most, float* sum) {
  ForVectors<V>(columns, [&](int64_t c, int lanes) {
    const auto a = LoadAny<V>(most + c, lanes), b = LoadAny<V>(range_most + c, lanes);
    const auto top = V::Max(a, b);
    const auto other = LoadAny<V>(range_sum + c, lanes) * Exp2<V>(b - top);
    StoreAny<V>(sum + c, V::Fma(LoadAny<V>(sum + c, lanes), Exp2<V>(a - top), other), lanes);
    StoreAny<V>(most + c, top, lanes);
  });
}

// Base-2 log-sum-exps. A column that sees no K2 gets one so high that all its scores are 0.
template <class V>
void LogSums(int64_t columns, const float* most, const float* sum, float* out) {
  for (int64_t c = 0; c < columns; ++c) out[c] = sum[c] > 0 ? most[c] + __builtin_log2f(sum[c]) : -kLowest;
}

// Scores [count][16 tokens] of `count` ≤ kWindowStep windows of one page from `first` on, summed over the heads in
// ascending order.
template <class V>
void FineScores(const SelectTask& task, const float* packed, const float* log_sums, int64_t first, int64_t count,
                float* products, float* scores) {
  const int64_t columns = Columns<V>(task), dim = task.kv.dim;
  const float* k1 =
      reinterpret_cast<const float*>(task.kv.pages[first / kPageWindows] + task.kv.k1) + first % kPageWindows * dim;
  for (int64_t col = 0; col < columns; col += kPanel) {
    const int64_t width = columns - col < kPanel ? columns - col : kPanel;
    Gemm<V>(count, width, dim, {k1, dim, 1}, packed + col * dim, width, products, width);
    for (int64_t j = 0; j < count; ++j) {
      for (int64_t l = 0; l < kSelectTokens; l += V::kLanes) {
        float* score = scores + j * kSelectTokens + l;
        auto sum = col == 0 ? V::Set(0) : V::Load(score);
        for (int64_t c = l; c < width; c += kSelectTokens) {
          sum = sum + Exp2<V>(V::Load(products + j * width + c) - V::Load(log_sums + col + c));
        }
        V::Store(score, sum);
      }
    }
  }
}

// Walks the windows that blocks [begin, end) pool over, if they are among the first `visible`: calls score(first,
// count) for pieces of at most `step` windows, a divisor of those of a page, then window(i, w) for each window w, the
// i-th of its piece, and block(b, i) after the last window of each block, 4b+3, which is also the first of block b+1.
// If windows end earlier, block is called for the last one with fewer.
template <class V, class Score, class Window, class Block>
void WalkWindows(int64_t begin, int64_t end, int64_t step, int64_t visible, Score score, Window window, Block block) {
  const int64_t last = 4 * end < visible ? 4 * end : visible;
  int64_t w = begin > 0 ? 4 * begin - 1 : 0;
  while (w < last) {
    int64_t count = step - w % step;
    if (count > last - w) count = last - w;
    score(w, count);
    for (int64_t i = 0; i < count; ++i, ++w) {
      window(i, w);
      if (w % 4 == 3 || w + 1 == last) block(w / 4, i);
    }
  }
}

template <class V>
void SelectFine(const SelectTask& task, const float* packed, const float* most, const float* sum, int64_t block_begin,
                int64_t block_end, BlockHeap* heaps, OfferBlock offer, float* scratch) {
  constexpr int kVectors = kSelectTokens / V::kLanes;
  const Visibility<V> visibility(task, 16);
  float* products = scratch;
  float* scores = products + kWindowStep * kPanel;
  float* log_sums = scores + kWindowStep * kSelectTokens;
  LogSums<V>(Columns<V>(task), most, sum, log_sums);

  // What a lane's next block must exceed; lanes without a token take none.
  float to_beat[kSelectTokens], values[kSelectTokens];
  for (int64_t r = 0; r < kSelectTokens; ++r) to_beat[r] = r < task.rows ? -1 : __builtin_inff();
  typename V::Float value[kVectors];
  for (int v = 0; v < kVectors; ++v) value[v] = V::Set(0);

  WalkWindows<V>(
      block_begin, block_end, kWindowStep, visibility.most,
      [&](int64_t first, int64_t count) { FineScores<V>(task, packed, log_sums, first, count, products, scores); },
      [&](int64_t i, int64_t w) {
        for (int v = 0; v < kVectors; ++v) {
          const auto score = V::Load(scores + i * kSelectTokens + v * V::kLanes);
          value[v] = V::Max(value[v], visibility.Hide(w, v * V::kLanes, score, 0));
        }
      },
      [&](int64_t block, int64_t i) {
        for (int v = 0; v < kVectors; ++v) {
          uint32_t better = V::GreaterBits(value[v], V::Load(to_beat + v * V::kLanes));
          if (better != 0 && block >= block_begin) {
            V::Store(values + v * V::kLanes, value[v]);
            for (; better != 0; better &= better - 1) {
              const int r = v * V::kLanes + __builtin_ctz(better);
              to_beat[r] = offer(heaps[r], values[r], static_cast<int32_t>(block));
            }
          }
          // Window 4b+3 is the first of block b+1. If it is hidden from a lane, so is all of b+1.
          const auto last = V::Load(scores + i * kSelectTokens + v * V::kLanes);
          value[v] = visibility.Hide(4 * block + 3, v * V::kLanes, last, 0);
        }
      });
}

}  // namespace salamander::kernels::body

#endif  // SALAMANDER_KERNELS_CPU_BODY_SELECT_H_
