// Softmax attention of a tile of tokens over blocks of 64 tokens, with running maximum and sum (the online softmax of
// FlashAttention, arXiv 2205.14135). Serves stage 2, where every token has its own blocks, and dense attention.
//
// The tile walks the union of its tokens' blocks in ascending order: neighbouring tokens share most blocks, so a block
// is fetched, and its keys are transposed, once for all that chose it. Scores then have keys as lanes, and each token
// takes part only in its own blocks, with all lanes busy however few heads share the keys. What a token gets does not
// depend on the tile it is in.
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

// The tile's memory. A row is one head of one token: row = token · group + head.
struct AttendTile {
  float* queries;  // [rows][dim], scaled to exponents of 2
  float* out;      // [rows][dim]: sums so far, relative to 2^most
  float* most;     // [rows]
  float* sums;     // [rows][lanes]
  float* keys;     // [dim][64], of the current block
  float* scores;   // [rows of a piece][64]
  float* tops;     // [rows of a piece]
  float* factors;  // [rows of a piece]: by which earlier sums are scaled
};

// Scores of rows [first, first + rows) to probabilities relative to the new running maximum.
template <class V>
void SoftmaxRows(const AttendTile& tile, int64_t first, int64_t rows, int64_t group, const int64_t* keys,
                 int64_t padded) {
  float* most = tile.most + first;
  for (int64_t i = 0; i < rows; ++i) {
    float* scores = tile.scores + i * kBlock;
    const int64_t count = keys[i / group];
    for (int64_t j = count; j < padded; ++j) scores[j] = kBelowAllScores;
    auto top = V::Load(scores);
    for (int64_t j = V::kLanes; j < padded; j += V::kLanes) top = V::Max(top, V::Load(scores + j));
    const float highest = V::Highest(top);
    tile.tops[i] = highest > most[i] ? highest : most[i];
  }
  ForVectors<V>(rows, [&](int64_t i, int lanes) {
    const auto top = LoadAny<V>(tile.tops + i, lanes);
    StoreAny<V>(tile.factors + i, Exp2<V>(LoadAny<V>(most + i, lanes) - top), lanes);
    StoreAny<V>(most + i, top, lanes);
  });
  for (int64_t i = 0; i < rows; ++i) {
    float* scores = tile.scores + i * kBlock;
    float* sums = tile.sums + (first + i) * V::kLanes;
    const auto top = V::Set(tile.tops[i]);
    auto sum = V::Load(sums) * V::Set(tile.factors[i]);
    for (int64_t j = 0; j < padded; j += V::kLanes) {
      const auto p = Exp2<V>(V::Load(scores + j) - top);
      V::Store(scores + j, p);
      sum = sum + p;
    }
    V::Store(sums, sum);
  }
}

template <class V>
void AttendBlock(const AttendTask& task, const AttendTile& tile, int64_t block, const int64_t* keys) {
  const int64_t dim = task.kv.dim, group = task.group;
  const std::byte* at = task.kv.pages[block / 16] + block % 16 * task.kv.block_bytes;
  const float* k = reinterpret_cast<const float*>(at + task.kv.keys);
  const float* v = reinterpret_cast<const float*>(at + task.kv.values);

  int64_t count = 0;  // later tokens of the block may not exist yet
  for (int64_t r = 0; r < task.rows; ++r) count = keys[r] > count ? keys[r] : count;
  const int64_t padded = (count + V::kLanes - 1) / V::kLanes * V::kLanes;
  TransposeRows<V>([&](int64_t j) { return k + j * dim; }, count, padded, dim, 1, tile.keys, kBlock);

  // Neighbours that chose the block go together, as long as their scores stay in the first cache.
  const int64_t together = group < kPieceRows ? kPieceRows / group : 1;
  for (int64_t begin = 0, end; begin < task.rows; begin = end) {
    end = begin + 1;
    if (keys[begin] == 0) continue;
    while (end < task.rows && end - begin < together && keys[end] > 0) ++end;
    const int64_t first = begin * group, rows = (end - begin) * group;
    Gemm<V>(rows, padded, dim, {tile.queries + first * dim, dim, 1}, tile.keys, kBlock, tile.scores, kBlock);
    SoftmaxRows<V>(tile, first, rows, group, keys + begin, padded);
    Gemm<V, GemmStart::kScaledAdd>(rows, dim, count, {tile.scores, kBlock, 1}, v, dim, tile.out + first * dim, dim,
                                   tile.factors);
  }
}

template <class V>
void StartTile(const AttendTask& task, const AttendTile& tile) {
  const int64_t dim = task.kv.dim;
  const auto scale = V::Set(kLog2E / __builtin_sqrtf(static_cast<float>(dim)));
  for (int64_t row = 0; row < task.rows * task.group; ++row) {
    const float* q = task.q.data + row / task.group * task.q.stride + row % task.group * dim;
    for (int64_t i = 0; i < dim; i += V::kLanes) {
      V::Store(tile.queries + row * dim + i, V::Load(q + i) * scale);
      V::Store(tile.out + row * dim + i, V::Set(0));
    }
    tile.most[row] = kBelowAllScores;
    V::Store(tile.sums + row * V::kLanes, V::Set(0));
  }
}

template <class V>
void FinishTile(const AttendTask& task, const AttendTile& tile) {
  const int64_t dim = task.kv.dim;
  for (int64_t row = 0; row < task.rows * task.group; ++row) {
    float* out = task.out.data + row / task.group * task.out.stride + row % task.group * dim;
    const float sum = V::Sum(V::Load(tile.sums + row * V::kLanes));
    const auto factor = V::Set(sum > 0 ? 1 / sum : 0);  // a token without any block attends to nothing
    for (int64_t i = 0; i < dim; i += V::kLanes) V::Store(out + i, V::Load(tile.out + row * dim + i) * factor);
  }
}

template <class V>
void Attend(const AttendTask& task, float* scratch) {
  const int64_t dim = task.kv.dim;
  AttendTile tile;
  tile.queries = scratch;
  tile.out = tile.queries + kAttendRows * dim;
  tile.keys = tile.out + kAttendRows * dim;
  tile.scores = tile.keys + kBlock * dim;
  tile.sums = tile.scores + kMaxGroup * kBlock;
  tile.most = tile.sums + kAttendRows * V::kLanes;
  tile.tops = tile.most + kAttendRows;
  tile.factors = tile.tops + kMaxGroup;

  StartTile<V>(task, tile);
  BlockUnion<V> blocks(task);
  int64_t keys[kAttendRows];
  for (int64_t block = blocks.Next(keys); block >= 0; block = blocks.Next(keys))
    AttendBlock<V>(task, tile, block, keys);
  FinishTile<V>(task, tile);
}

}  // namespace salamander::kernels::body

#endif  // SALAMANDER_KERNELS_CPU_BODY_ATTEND_H_
