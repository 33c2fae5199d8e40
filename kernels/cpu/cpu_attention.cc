// Lightning attention, pages and tiers, stage 1 and stage 2 as tasks.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/task_views.h"

namespace salamander::kernels {
namespace {

float* KeyTile(const HeadPages& kv, int64_t block) {
  return reinterpret_cast<float*>(kv.pages[block / kPageBlocks] + block % kPageBlocks * kv.block_bytes + kv.keys);
}
float* ValueTile(const HeadPages& kv, int64_t block) {
  return reinterpret_cast<float*>(kv.pages[block / kPageBlocks] + block % kPageBlocks * kv.block_bytes + kv.values);
}

// The rows behind the sequence's last one, if its block begins among them.
void ZeroRestOfBegunBlock(const KvLayout& kv, const SparseRows& seq) {
  const int64_t end = seq.position + seq.rows, used = end % kBlockTokens, block = end / kBlockTokens;
  if (used == 0 || block * kBlockTokens < seq.position) return;
  for (int64_t head = 0; head < kv.kv_heads; ++head) {
    const HeadPages pages = PagesOf(kv, seq.pages, head);
    std::fill_n(KeyTile(pages, block) + used * kv.head_dim, (kBlockTokens - used) * kv.head_dim, 0.0f);
    std::fill_n(ValueTile(pages, block) + used * kv.head_dim, (kBlockTokens - used) * kv.head_dim, 0.0f);
  }
}

// kChunkTokens zeros, then decay^0 … decay^kChunkTokens.
std::vector<float> DecayPowers(float slope) {
  std::vector<float> powers(2 * kChunkTokens + 1);
  for (int64_t i = 0; i <= kChunkTokens; ++i) {
    powers[kChunkTokens + i] = static_cast<float>(std::exp(-static_cast<double>(slope) * static_cast<double>(i)));
  }
  return powers;
}

}  // namespace

absl::Status CpuOps::Lightning(const LightningShape& shape, const Matrix& q, const Matrix& k, const Matrix& v,
                               absl::Span<const LightningRows> sequences, const Matrix& out) {
  const OpClock::Scope timing(clock_, OpKind::kLightning);
  const int64_t dim = shape.head_dim, group = shape.heads / shape.kv_heads;
  if (absl::Status status = CheckLightningShape(shape); !status.ok()) return status;
  std::vector<std::vector<float>> powers;
  for (float slope : shape.slopes) powers.push_back(DecayPowers(slope));

  // Heads are independent, and so are columns of the values; these are shared out only if heads are too few, as every
  // task computes all of q kᵀ.
  const int64_t heads = static_cast<int64_t>(sequences.size()) * shape.heads;
  int64_t splits = 1;
  while (heads * splits < pool_.threads() && dim % (2 * splits * kDimMultiple) == 0) splits *= 2;
  const int64_t cols = dim / splits;
  pool_.Run(heads * splits, [&](int64_t task, int thread) {
    const LightningRows& seq = sequences[task / splits / shape.heads];
    if (seq.rows == 0) return;
    const int64_t head = task / splits % shape.heads;
    const LightningTask work = {.rows = seq.rows,
                                .position = seq.position,
                                .dim = dim,
                                .col = task % splits * cols,
                                .cols = cols,
                                .q = HeadRows(q, seq.row, head, dim),
                                .k = HeadRows(k, seq.row, head / group, dim),
                                .v = HeadRows(v, seq.row, head / group, dim),
                                .out = HeadRows(out, seq.row, head, dim),
                                .state = seq.state + head * dim * dim,
                                .scale = shape.scale,
                                .powers = powers[head].data()};
    if (seq.rows == 1) {
      kernels_.lightning_step(work);
    } else {
      kernels_.lightning_chunks(work, scratch_[thread].Get(LightningScratch(dim)));
    }
  });
  return absl::OkStatus();
}

absl::Status CpuOps::AppendKv(const SparseShape& shape, const Matrix& k, const Matrix& v,
                              absl::Span<const SparseRows> sequences) {
  const OpClock::Scope timing(clock_, OpKind::kAppendKv);
  const int64_t dim = shape.kv.head_dim;
  for (const SparseRows& seq : sequences) {
    ForRows(seq.rows, [&](int64_t begin, int64_t end) {
      for (int64_t head = 0; head < shape.kv.kv_heads; ++head) {
        const HeadPages pages = PagesOf(shape.kv, seq.pages, head);
        for (int64_t i = begin; i < end; ++i) {
          const int64_t position = seq.position + i, at = position % kBlockTokens * dim;
          std::memcpy(KeyTile(pages, position / kBlockTokens) + at, HeadRows(k, seq.row + i, head, dim).data,
                      dim * sizeof(float));
          std::memcpy(ValueTile(pages, position / kBlockTokens) + at, HeadRows(v, seq.row + i, head, dim).data,
                      dim * sizeof(float));
        }
      }
    });
    ZeroRestOfBegunBlock(shape.kv, seq);
  }
  return absl::OkStatus();
}

absl::Status CpuOps::PoolTiers(const SparseShape& shape, absl::Span<const SparseRows> sequences) {
  const OpClock::Scope timing(clock_, OpKind::kPoolTiers);
  for (const SparseRows& seq : sequences) PoolTiersOf(shape, seq.pages, seq.position, seq.position + seq.rows);
  return absl::OkStatus();
}

void CpuOps::PoolTiersOf(const SparseShape& shape, std::byte* const* pages, int64_t from, int64_t to) {
  const int64_t dim = shape.kv.head_dim;
  const int64_t k1_from = K1Count(from), k1_to = K1Count(to), k2_from = K2Count(from), k2_to = K2Count(to);
  for (int64_t head = 0; head < shape.kv.kv_heads; ++head) {
    const HeadPages kv = PagesOf(shape.kv, pages, head);
    auto key = [&](int64_t token) { return KeyTile(kv, token / kBlockTokens) + token % kBlockTokens * dim; };
    // Each window is two halves, and each half lies inside a block.
    ForRows(k1_to - k1_from, [&](int64_t begin, int64_t end) {
      for (int64_t j = k1_from + begin; j < k1_from + end; ++j) {
        auto* out = reinterpret_cast<float*>(pages[j / kPageK1] + shape.kv.k1(head, j % kPageK1));
        kernels_.mean_of_rows(key(j * kK1Stride), key((j + 1) * kK1Stride), kK1Stride, dim, out);
      }
    });
    ForRows(k2_to - k2_from, [&](int64_t begin, int64_t end) {
      for (int64_t j = k2_from + begin; j < k2_from + end; ++j) {
        auto* out = reinterpret_cast<float*>(pages[j / kPageK2] + shape.kv.k2(head, j % kPageK2));
        kernels_.mean_of_rows(key(j * kK2Stride), key((j + 1) * kK2Stride), kK2Stride, dim, out);
      }
    });
  }
}

absl::Status CpuOps::AttendBlocks(const SparseShape& shape, const Matrix& q, absl::Span<const SparseRows> sequences,
                                  const int32_t* blocks, const Matrix& out) {
  const OpClock::Scope timing(clock_, OpKind::kAttendBlocks);
  return Attend(shape, q, sequences, blocks, out);
}

absl::Status CpuOps::AttendDense(const SparseShape& shape, const Matrix& q, absl::Span<const SparseRows> sequences,
                                 const Matrix& out) {
  const OpClock::Scope timing(clock_, OpKind::kAttendDense);
  return Attend(shape, q, sequences, nullptr, out);
}

absl::Status CpuOps::Attend(const SparseShape& shape, const Matrix& q, absl::Span<const SparseRows> sequences,
                            const int32_t* blocks, const Matrix& out) {
  const int64_t dim = shape.kv.head_dim, kv_heads = shape.kv.kv_heads, group = shape.heads / kv_heads;
  if (absl::Status status = CheckSparseShape(shape); !status.ok()) return status;
  struct Tile {
    const SparseRows* seq;
    int64_t begin, end, head;
  };
  std::vector<Tile> tiles;
  const int64_t tokens = kAttendRows / group;
  for (const SparseRows& seq : sequences) {
    for (int64_t begin = 0, end; begin < seq.rows; begin = end) {
      end = std::min(seq.rows, (seq.position + begin) / tokens * tokens + tokens - seq.position);
      for (int64_t head = 0; head < kv_heads; ++head) tiles.push_back({&seq, begin, end, head});
    }
  }
  pool_.Run(static_cast<int64_t>(tiles.size()), [&](int64_t task, int thread) {
    const Tile& tile = tiles[task];
    const int64_t row = tile.seq->row + tile.begin;
    kernels_.attend({.kv = PagesOf(shape.kv, tile.seq->pages, tile.head),
                     .group = group,
                     .rows = tile.end - tile.begin,
                     .position = tile.seq->position + tile.begin,
                     .q = HeadRows(q, row, tile.head * group, dim),
                     .out = HeadRows(out, row, tile.head * group, dim),
                     .blocks = blocks != nullptr ? blocks + (row * kv_heads + tile.head) * shape.top_blocks : nullptr,
                     .blocks_stride = kv_heads * shape.top_blocks,
                     .top_blocks = shape.top_blocks},
                    scratch_[thread].Get(AttendScratch(dim)));
  });
  return absl::OkStatus();
}

}  // namespace salamander::kernels
