// From a plan to memory: which items a worker expects, and where in a sequence each of them goes.
#ifndef SALAMANDER_COMMON_WORKER_ITEMS_H_
#define SALAMANDER_COMMON_WORKER_ITEMS_H_

#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/base/ids.h"
#include "common/engine/model.h"
#include "common/engine/sequence.h"
#include "common/stream/item.h"
#include "common/stream/manifest.h"
#include "salamander/v1/stream.pb.h"

namespace salamander::worker {

stream::LayerKinds SparseLayers(const engine::Model& model);

// Tiles: of keys-values one block's keys or values of one head; of a state one head; the hidden row is one tile.
stream::ItemShape ShapeOf(const engine::Model& model, v1::ItemKind kind);

// Index of the prefill worker with that instance in a plan. INVALID_ARGUMENT if it is not in there.
absl::StatusOr<int> FindPrefillWorker(const v1::Plan& plan, InstanceId instance);

// CheckPlan, a known codec, and that the plan's decode worker is set.
absl::Status CheckRequestPlan(const v1::Plan& plan);

// Everything `worker` expects, placed into `sequence`, which lies in `memory` (null: the host's), and, for the hidden
// row, `hidden` [hidden_size].
//
// A lightning layer has one state, and the states after several earlier spans may be expected into it. They cannot
// clash: the state after span j depends on that after every span before, so it is only sent once this worker has used
// the previous one.
std::vector<stream::ExpectedItem> PlaceItems(const v1::Plan& plan, int worker, engine::Sequence& sequence,
                                             stream::ItemMemory* memory, absl::Span<float> hidden);

}  // namespace salamander::worker

#endif  // SALAMANDER_COMMON_WORKER_ITEMS_H_
