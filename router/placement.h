// Which workers a request goes to, by what the registry knows at this moment.
#ifndef SALAMANDER_ROUTER_PLACEMENT_H_
#define SALAMANDER_ROUTER_PLACEMENT_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/ids.h"
#include "router/planner.h"
#include "router/registry.h"

namespace salamander::router {

// What a request needs.
struct Demand {
  int64_t prompt_tokens = 0;
  int64_t total_tokens = 0;  // prompt and output
};

struct PlacedWorker {
  InstanceId instance = 0;
  std::string title;  // "prefill worker p0", for messages
  std::shared_ptr<WorkerClient> client;
  Registry::LoadHold load;
};

struct Placement {
  v1::Plan plan;
  std::vector<PlacedWorker> prefill;  // as plan.prefill_workers
  PlacedWorker decode;
};

// What prefill workers have to do and how fast they were seen to do it.
struct PrefillLoad {
  int64_t tokens = 0;
  double tokens_per_second = 0;  // of all together; 0 when unknown
};

// Any thread. The registry outlives it.
class Placer {
 public:
  Placer(Registry* registry, PlanPolicy policy) : registry_(registry), policy_(policy) {}

  // At arrival. UNAVAILABLE if no prefill or no decode worker is ready; INVALID_ARGUMENT, naming the largest worker, if
  // the request would not fit any even when idle.
  absl::Status CheckPossible(const Demand& demand) const;

  // RESOURCE_EXHAUSTED: no room now, or none is ready now. UNAVAILABLE: no worker of a role is left at all. The load is
  // counted from here on, so that the next decision sees it.
  absl::StatusOr<Placement> Place(const Demand& demand) const;

  PrefillLoad Load() const;

 private:
  Registry* const registry_;
  const PlanPolicy policy_;
};

}  // namespace salamander::router

#endif  // SALAMANDER_ROUTER_PLACEMENT_H_
