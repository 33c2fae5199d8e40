// Softmax attention of a tile of query rows over blocks of 64 tokens, with running maximum and sum (the online softmax
// of FlashAttention, arXiv 2205.14135). Serves stage 2, where every token has its own blocks, and dense attention.
//
// Query rows (tokens times the heads of a group) are the lanes of the score product, keys its rows, read in place. The
// tile walks the union of its tokens' blocks in ascending order, so that a block is fetched once for all tokens that
// chose it; vectors of rows and rows that did not choose a block are left out of its products. Neighbouring tokens
// share most blocks. What a row gets does not depend on the tile it is in: a block it did not choose adds exact zeros.
#ifndef SALAMANDER_KERNELS_CPU_BODY_ATTEND_H_
#define SALAMANDER_KERNELS_CPU_BODY_ATTEND_H_

#include <cstdint>

#include "kernels/cpu/body/gemm.h"
#include "kernels/cpu/body/math.h"
#include "kernels/cpu/body/transpose.h"
#include "kernels/cpu/kernel_table.h"

namespace salamander::kernels::body {

inline constexpr int64_t kBlock = 64;             // tokens
inline constexpr float kBelowAllScores = -1e30f;  // finite: differences stay numbers

// Walks the union of the tokens' blocks.
template <class V>
class BlockUnion {
 public:
  explicit BlockUnion(const AttendTask& task) : task_(task) {
    for (int64_t r = 0; r < task.rows; ++r) at_[r] = 0;
  }

  // The lowest block not walked yet, or -1. Sets keys[r], how many of its tokens row r attends to.
  int64_t Next(int64_t* keys) {
    const int64_t block = task_.blocks == nullptr ? NextOfAll() : NextChosen();
    if (block < 0) return block;
    for (int64_t r = 0; r < task_.rows; ++r) {
      const int64_t reach = task_.position + r - block * kBlock + 1;
      const bool chosen = task_.blocks == nullptr ? reach > 0 : Head(r) == block;
      keys[r] = !chosen ? 0 : reach < kBlock ? reach : kBlock;
      if (chosen) ++at_[r];
    }
    return block;
  }

 private:
  int64_t NextOfAll() {
    const int64_t block = walked_++;
    return block <= (task_.position + task_.rows - 1) / kBlock ? block : -1;
  }
  int64_t NextChosen() const {
    int64_t lowest = -1;
    for (int64_t r = 0; r < task_.rows; ++r) {
      const int64_t block = Head(r);
      if (block >= 0 && (lowest < 0 || block < lowest)) lowest = block;
    }
    return lowest;
  }
  // The next block of a row, -1 after its last.
  int64_t Head(int64_t r) const {
    return at_[r] < task_.top_blocks ? task_.blocks[r * task_.blocks_stride + at_[r]] : -1;
  }

  const AttendTask& task_;
  int64_t at_[kAttendRows];
  int64_t walked_ = 0;
};

// The tile's running results, in scratch.
struct AttendTile {
  int64_t columns;  // rows times heads
  int64_t width;    // columns, padded to whole vectors
  float* queries;   // [dim][width], scaled to exponents of 2
  float* scores;    // [64 keys][width]
  float* out;       // [width][dim]
  float* most;      // [width], like the next three
  float* sum;
  float* factor;  // by which what is in `out` is to be scaled
  float* limit;   // keys of the current block a column attends to
};

// Scores of one vector of columns to probabilities relative to the running maximum.
template <class V>
void SoftmaxColumns(const AttendTile& tile, int64_t col, int64_t count, bool masked) {
  float* scores = tile.scores + col;
  const auto limit = V::Load(tile.limit + col);
  const auto before = V::Load(tile.most + col);
  auto top = before;
  for (int64_t j = 0; j < count; ++j) {
    auto score = V::Load(scores + j * tile.width);
    if (masked) {
      score = V::IfLess(V::Set(static_cast<float>(j)), limit, score, V::Set(-__builtin_inff()));
      V::Store(scores + j * tile.width, score);
    }
    top = V::Max(top, score);
  }
  const auto factor = Exp2<V>(before - top);
  auto sum = V::Load(tile.sum + col) * factor;
  for (int64_t j = 0; j < count; ++j) {
    const auto p = Exp2<V>(V::Load(scores + j * tile.width) - top);
    V::Store(scores + j * tile.width, p);
    sum = sum + p;
  }
  V::Store(tile.most + col, top);
  V::Store(tile.sum + col, sum);
  V::Store(tile.factor + col, factor);
}

// Calls run(begin, end) for the longest runs of [0, count) where active(i).
template <class V, class Active, class Run>
void ForRuns(int64_t count, Active active, Run run) {
  for (int64_t i = 0; i < count; ++i) {
    if (!active(i)) continue;
    const int64_t begin = i;
    while (i < count && active(i)) ++i;
    run(begin, i);
  }
}

template <class V>
void AttendBlock(const AttendTask& task, const AttendTile& tile, int64_t block, const int64_t* keys) {
  const int64_t dim = task.kv.dim;
  const std::byte* at = task.kv.pages[block / 16] + block % 16 * task.kv.block_bytes;
  const float* k = reinterpret_cast<const float*>(at + task.kv.keys);
  const float* v = reinterpret_cast<const float*>(at + task.kv.values);

  int64_t count = 0, col = 0;
  for (int64_t r = 0; r < task.rows; ++r) {
    if (keys[r] > count) count = keys[r];
    for (int64_t h = 0; h < task.group; ++h) tile.limit[col++] = static_cast<float>(keys[r]);
  }
  bool any[kAttendRows / V::kLanes], masked[kAttendRows / V::kLanes];
  for (int64_t i = 0; i < tile.width / V::kLanes; ++i) {
    any[i] = masked[i] = false;
    for (int64_t c = i * V::kLanes; c < (i + 1) * V::kLanes && c < tile.columns; ++c) {
      any[i] |= tile.limit[c] > 0;
      masked[i] |= tile.limit[c] < static_cast<float>(count);
    }
  }

  ForRuns<V>(
      tile.width / V::kLanes, [&](int64_t i) { return any[i]; },
      [&](int64_t begin, int64_t end) {
        const int64_t first = begin * V::kLanes;
        Gemm<V>(count, (end - begin) * V::kLanes, dim, {k, dim, 1}, tile.queries + first, tile.width,
                tile.scores + first, tile.width);
        for (int64_t i = begin; i < end; ++i) SoftmaxColumns<V>(tile, i * V::kLanes, count, masked[i]);
      });
  ForRuns<V>(
      task.rows, [&](int64_t r) { return keys[r] > 0; },
      [&](int64_t begin, int64_t end) {
        const int64_t first = begin * task.group;
        Gemm<V, GemmStart::kScaledAdd>((end - begin) * task.group, dim, count, {tile.scores + first, 1, tile.width}, v,
                                       dim, tile.out + first * dim, dim, tile.factor + first);
      });
}

template <class V>
void Attend(const AttendTask& task, float* scratch) {
  const int64_t dim = task.kv.dim;
  AttendTile tile;
  tile.columns = task.rows * task.group;
  tile.width = (tile.columns + V::kLanes - 1) / V::kLanes * V::kLanes;
  tile.queries = scratch;
  tile.out = tile.queries + kAttendRows * dim;
  tile.scores = tile.out + kAttendRows * dim;
  tile.most = tile.scores + kAttendRows * kBlock;
  tile.sum = tile.most + kAttendRows;
  tile.factor = tile.sum + kAttendRows;
  tile.limit = tile.factor + kAttendRows;

  const float scale = kLog2E / __builtin_sqrtf(static_cast<float>(dim));
  TransposeRows<V>([&](int64_t c) { return task.q.data + c / task.group * task.q.stride + c % task.group * dim; },
                   tile.columns, tile.width, dim, scale, tile.queries, tile.width);
  for (int64_t c = 0; c < tile.width; c += V::kLanes) {
    V::Store(tile.most + c, V::Set(kBelowAllScores));
    V::Store(tile.sum + c, V::Set(0));
    V::Store(tile.limit + c, V::Set(0));
  }
  for (int64_t i = 0; i < tile.width * dim; i += V::kLanes) V::Store(tile.out + i, V::Set(0));

  BlockUnion<V> blocks(task);
  int64_t keys[kAttendRows];
  for (int64_t block = blocks.Next(keys); block >= 0; block = blocks.Next(keys))
    AttendBlock<V>(task, tile, block, keys);

  for (int64_t c = 0; c < tile.columns; ++c) {
    float* out = task.out.data + c / task.group * task.out.stride + c % task.group * dim;
    const auto factor = V::Set(tile.sum[c] > 0 ? 1 / tile.sum[c] : 0);
    for (int64_t i = 0; i < dim; i += V::kLanes) V::Store(out + i, V::Load(tile.out + c * dim + i) * factor);
  }
}

}  // namespace salamander::kernels::body

#endif  // SALAMANDER_KERNELS_CPU_BODY_ATTEND_H_
