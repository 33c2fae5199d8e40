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
  RETURN_IF_ERROR(sequence->WritePageTables(ledger));
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

absl::Status Sequence::WritePageTables(MemoryLedger& ledger) {
  kernels::Ops& ops = model_.ops();
  std::vector<std::byte*> all;
  for (const std::vector<std::byte*>& pages : pages_) all.insert(all.end(), pages.begin(), pages.end());
  const int64_t bytes = static_cast<int64_t>(all.size() * sizeof(std::byte*));
  ASSIGN_OR_RETURN(page_table_memory_, DeviceBuffer::Allocate(ops, ledger, MemoryOwner::kPages, bytes));
  RETURN_IF_ERROR(ops.CopyToDevice(page_table_memory_.data(), all.data(), bytes));
  auto* table = page_table_memory_.as<std::byte*>();
  for (const std::vector<std::byte*>& pages : pages_) {
    page_tables_.push_back(table);
    table += pages.size();
  }
  return absl::OkStatus();
}

absl::Status Sequence::ExtendTiers(int64_t layer, int64_t tokens) {
  const kernels::SparseRows rows = TakeTierRows(layer, tokens);
  // Every K2 window ends where a K1 window ends, so no new K1 window means nothing to do.
  if (kernels::K1Count(rows.position + rows.rows) == kernels::K1Count(rows.position)) return absl::OkStatus();
  return model_.ops().PoolTiers(model_.sparse_shape(), {rows});
}

kernels::SparseRows Sequence::TakeTierRows(int64_t layer, int64_t tokens) {
  int64_t& done = tier_tokens_[layer];
  const kernels::SparseRows rows = {0, std::max<int64_t>(0, tokens - done), done, pages(layer)};
  done = std::max(done, tokens);
  return rows;
}

}  // namespace salamander::engine
