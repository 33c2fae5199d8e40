#include "common/engine/sequence.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"

namespace salamander::engine {

using kernels::kBlockTokens;
using kernels::kPageBlocks;
using kernels::kPageTokens;

absl::StatusOr<std::unique_ptr<Sequence>> Sequence::Create(const Model& model, MemoryLedger& ledger,
                                                           int64_t max_tokens) {
  if (max_tokens < 1) {
    return absl::InvalidArgumentError(absl::StrCat("max_tokens of a sequence must be ≥ 1, got ", max_tokens));
  }
  kernels::Ops& ops = model.ops();
  const int64_t page_count = (max_tokens + kPageTokens - 1) / kPageTokens;
  std::unique_ptr<Sequence> sequence(new Sequence(model, max_tokens));
  sequence->pages_.resize(model.layers());
  sequence->states_.resize(model.layers());
  sequence->tier_tokens_.resize(model.layers(), 0);
  for (int64_t layer = 0; layer < model.layers(); ++layer) {
    if (!model.is_sparse(layer)) {
      ASSIGN_OR_RETURN(sequence->states_[layer],
                       DeviceBuffer::Allocate(ops, ledger, MemoryOwner::kStates, model.state_bytes()));
      RETURN_IF_ERROR(ops.Zero(sequence->states_[layer].data(), model.state_bytes()));
      continue;
    }
    // One piece per layer, never touched as a whole: on a CPU, pages become resident as tokens arrive.
    ASSIGN_OR_RETURN(DeviceBuffer memory,
                     DeviceBuffer::Allocate(ops, ledger, MemoryOwner::kPages, page_count * model.page_bytes()));
    for (int64_t page = 0; page < page_count; ++page) {
      sequence->pages_[layer].push_back(memory.as<std::byte>() + page * model.page_bytes());
    }
    sequence->page_memory_.push_back(std::move(memory));
  }
  return sequence;
}

std::vector<absl::Span<std::byte>> Sequence::KvBytes(int64_t layer, int64_t begin, int64_t end) {
  const int64_t block_bytes = model_.sparse_shape().kv.block_bytes();
  const int64_t end_block = (end + kBlockTokens - 1) / kBlockTokens;
  std::vector<absl::Span<std::byte>> runs;
  for (int64_t block = begin / kBlockTokens; block < end_block;) {
    const int64_t page = block / kPageBlocks;
    const int64_t run_end = std::min(end_block, (page + 1) * kPageBlocks);
    runs.emplace_back(pages_[layer][page] + (block % kPageBlocks) * block_bytes, (run_end - block) * block_bytes);
    block = run_end;
  }
  return runs;
}

absl::Span<std::byte> Sequence::State(int64_t layer) {
  return absl::MakeSpan(states_[layer].as<std::byte>(), states_[layer].bytes());
}

absl::Status Sequence::ZeroTail(int64_t layer, int64_t tokens) {
  const int64_t used = tokens % kBlockTokens;
  if (used == 0) return absl::OkStatus();
  const kernels::KvLayout& layout = model_.sparse_shape().kv;
  const int64_t block = tokens / kBlockTokens % kPageBlocks;
  std::byte* page = pages_[layer][tokens / kPageTokens];
  const int64_t from = used * layout.row_bytes();
  for (int64_t head = 0; head < layout.kv_heads; ++head) {
    RETURN_IF_ERROR(model_.ops().Zero(page + layout.keys(block, head) + from, layout.tile_bytes() - from));
    RETURN_IF_ERROR(model_.ops().Zero(page + layout.values(block, head) + from, layout.tile_bytes() - from));
  }
  return absl::OkStatus();
}

absl::Status Sequence::ExtendTiers(int64_t layer, int64_t tokens) {
  int64_t& done = tier_tokens_[layer];
  if (tokens <= done) return absl::OkStatus();
  // Every K2 window ends where a K1 window ends, so no new K1 window means nothing to do.
  if (kernels::K1Count(tokens) > kernels::K1Count(done)) {
    RETURN_IF_ERROR(model_.ops().PoolTiers(model_.sparse_shape(), pages(layer), done, tokens));
  }
  done = tokens;
  return absl::OkStatus();
}

}  // namespace salamander::engine
