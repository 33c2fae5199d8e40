// Which items a plan makes each leg send and expect. Pure functions: every leg computes the same from the same plan.
//
//   sparse layer    keys-values of span i: from its worker to every other prefill worker that has a later span, and to
//                   the decode worker
//   lightning layer state after span i: to the worker of span i+1 if that is another one; of the last span to decode
//   hidden          of the last span: to decode
#ifndef SALAMANDER_COMMON_STREAM_MANIFEST_H_
#define SALAMANDER_COMMON_STREAM_MANIFEST_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "common/stream/item.h"

namespace salamander::stream {

// The decode worker as a destination; prefill workers are indices into plan.prefill_workers().
inline constexpr int kDecodeWorker = -1;

// True per layer for sparse ones.
using LayerKinds = std::vector<bool>;

// INVALID_ARGUMENT if spans do not tile [0, prompt_tokens) in order, a begin is no multiple of 128, or a worker index
// is out of range.
absl::Status CheckPlan(const v1::Plan& plan);

// Destinations (worker indices, kDecodeWorker last) of an item that span `id.span`'s worker made; may be empty.
std::vector<int> Destinations(const v1::Plan& plan, const ItemId& id);

// Every item that `worker` (index or kDecodeWorker) must receive, in order of span, then layer.
std::vector<ItemId> ExpectedItems(const v1::Plan& plan, const LayerKinds& sparse, int worker);

}  // namespace salamander::stream

#endif  // SALAMANDER_COMMON_STREAM_MANIFEST_H_
