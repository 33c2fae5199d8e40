#include "tests/common/engine/choice_log.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "tests/kernels/reference.h"

namespace salamander::engine {
namespace {

using kernels::Matrix;
using kernels::SparseRows;
using kernels::SparseShape;

// The blocks of a choice padded with -1.
std::vector<int32_t> Picks(const int32_t* blocks, int64_t top_blocks) {
  return {blocks, std::find(blocks, blocks + top_blocks, -1)};
}

// Keys of a sequence in float32 pages of the host.
kernels::reference::TokenVectors Keys(const kernels::KvLayout& kv, const SparseRows& sequence, int64_t head) {
  return [&kv, pages = sequence.pages, head](int64_t token) {
    const std::byte* page = pages[token / kernels::kPageTokens];
    const int64_t block = token / kernels::kBlockTokens % kernels::kPageBlocks;
    return reinterpret_cast<const float*>(page + kv.keys(block, head) + token % kernels::kBlockTokens * kv.row_bytes());
  };
}

}  // namespace

TappedOps::Tap ChoiceLog::Recorder(kernels::Ops& ops) {
  return [this, &ops](const SparseShape& shape, const Matrix&, TappedOps::SparseList sequences,
                      int32_t* blocks) -> absl::Status {
    const int64_t width = shape.kv.kv_heads * shape.top_blocks;
    for (const SparseRows& sequence : sequences) {
      for (int64_t row = sequence.row; row < sequence.row + sequence.rows; ++row) {
        rows_.emplace_back(width);
        RETURN_IF_ERROR(
            ops.CopyToHost(rows_.back().data(), blocks + row * width, width * static_cast<int64_t>(sizeof(int32_t))));
      }
    }
    return ops.Synchronize();
  };
}

TappedOps::Tap ChoiceLog::Follower() {
  return [this](const SparseShape& shape, const Matrix& q, TappedOps::SparseList sequences,
                int32_t* blocks) -> absl::Status {
    for (const SparseRows& sequence : sequences) {
      for (int64_t i = 0; i < sequence.rows; ++i) {
        if (rows_.empty()) return absl::InternalError("the other run has chosen for fewer rows");
        const Row theirs = std::move(rows_.front());
        rows_.pop_front();
        const int64_t row = sequence.row + i;
        for (int64_t head = 0; head < shape.kv.kv_heads; ++head) {
          RETURN_IF_ERROR(FollowHead(shape, static_cast<const float*>(q.data) + row * q.stride, head, sequence,
                                     sequence.position + i, theirs.data() + head * shape.top_blocks,
                                     blocks + (row * shape.kv.kv_heads + head) * shape.top_blocks));
        }
      }
    }
    return absl::OkStatus();
  };
}

absl::Status ChoiceLog::FollowHead(const SparseShape& shape, const float* queries, int64_t head,
                                   const SparseRows& sequence, int64_t position, const int32_t* theirs,
                                   int32_t* blocks) {
  ++followed_;
  if (std::equal(theirs, theirs + shape.top_blocks, blocks)) return absl::OkStatus();
  ++differing_;
  const int64_t group = shape.heads / shape.kv.kv_heads;
  std::vector<const float*> heads;
  for (int64_t h = head * group; h < (head + 1) * group; ++h) heads.push_back(queries + h * shape.kv.head_dim);
  const kernels::reference::Choice want =
      kernels::reference::ChooseBlocks(shape, heads, Keys(shape.kv, sequence, head), position, position + 1);

  const std::vector<int32_t> picks = Picks(theirs, shape.top_blocks);
  const bool ascending = std::adjacent_find(picks.begin(), picks.end(), std::greater_equal<>()) == picks.end();
  const auto existing = static_cast<int64_t>(want.values.size());
  if (picks.size() != want.picks.size() || !ascending || picks.front() < 0 || picks.back() >= existing) {
    return absl::InternalError(absl::StrCat("position ", position, ", head ", head, ": ", want.picks.size(),
                                            " ascending blocks below ", existing, " must be chosen, got ",
                                            absl::StrJoin(picks, " ")));
  }
  double cut = std::numeric_limits<double>::infinity(), least = cut;
  for (const int32_t block : want.picks) cut = std::min(cut, want.values[block]);
  for (const int32_t block : picks) least = std::min(least, want.values[block]);
  // All that the oracle chooses is forced: then so must theirs be.
  const double shortfall = std::isinf(cut) ? (std::isinf(least) ? 0 : 1) : 1 - least / cut;
  worst_shortfall_ = std::max(worst_shortfall_, shortfall);
  std::copy_n(theirs, shape.top_blocks, blocks);
  return absl::OkStatus();
}

}  // namespace salamander::engine
