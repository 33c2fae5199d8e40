// What a worker holds of one request: pages of keys, values and tiers per sparse layer, one state per lightning layer.
//
// All memory is taken at creation, for the longest the sequence may become, and given back by the destructor. Who may
// write: the engine thread, and streams into KvBytes()/State() memory whose items have not been verified yet. A span's
// bytes are written by exactly one of the two and not read by the engine before they are complete.
#ifndef SALAMANDER_COMMON_ENGINE_SEQUENCE_H_
#define SALAMANDER_COMMON_ENGINE_SEQUENCE_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/base/memory_ledger.h"
#include "common/engine/model.h"

namespace salamander::engine {

class Sequence {
 public:
  // All or nothing. States start at zero. RESOURCE_EXHAUSTED if the ledger or device lacks the memory.
  static absl::StatusOr<std::unique_ptr<Sequence>> Create(const Model& model, MemoryLedger& ledger, int64_t max_tokens);

  int64_t max_tokens() const { return max_tokens_; }
  const Model& model() const { return model_; }

  // The memory of tokens [begin, end) of a sparse layer, in stream order (ITEM_KIND_KEYS_VALUES): one run of bytes per
  // page touched. begin is a multiple of 64; a last block that is not full appears whole, its unused rows zero.
  std::vector<absl::Span<std::byte>> KvBytes(int64_t layer, int64_t begin, int64_t end);
  absl::Span<std::byte> State(int64_t layer);

  // On the device, as SparseRows wants it.
  std::byte* const* pages(int64_t layer) const { return page_tables_[layer]; }
  float* state(int64_t layer) const { return states_[layer].as<float>(); }

  // Computes the layer's tiers as far as `tokens` tokens allow, from where the last call ended. Engine thread; all
  // keys before `tokens` are in the pages.
  absl::Status ExtendTiers(int64_t layer, int64_t tokens);
  // What ExtendTiers would compute, for a caller who does so itself, for several sequences at once.
  kernels::SparseRows TakeTierRows(int64_t layer, int64_t tokens);

 private:
  Sequence(const Model& model, int64_t max_tokens) : model_(model), max_tokens_(max_tokens) {}
  absl::Status WritePageTables(MemoryLedger& ledger);

  const Model& model_;
  int64_t max_tokens_;
  std::vector<DeviceBuffer> page_memory_;
  std::vector<std::vector<std::byte*>> pages_;  // per layer; empty for lightning layers
  DeviceBuffer page_table_memory_;
  std::vector<std::byte**> page_tables_;  // per layer, on the device: pages_ once more
  std::vector<DeviceBuffer> states_;      // per layer; empty for sparse layers
  std::vector<int64_t> tier_tokens_;
};

}  // namespace salamander::engine

#endif  // SALAMANDER_COMMON_ENGINE_SEQUENCE_H_
