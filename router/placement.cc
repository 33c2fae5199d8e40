#include "router/placement.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "router/hello_checks.h"

namespace salamander::router {
namespace {

std::vector<WorkerView> OfRole(const std::vector<WorkerView>& workers, v1::WorkerRole role) {
  std::vector<WorkerView> chosen;
  std::copy_if(workers.begin(), workers.end(), std::back_inserter(chosen),
               [role](const WorkerView& worker) { return worker.hello->role() == role; });
  return chosen;
}

// A worker that warms its link to a peer which has just joined is ready again in a moment: worth waiting in the queue.
constexpr double kWarmingSeconds = 5;

bool AnyReadyOrWarming(const std::vector<WorkerView>& workers) {
  return std::any_of(workers.begin(), workers.end(),
                     [](const WorkerView& worker) { return worker.seconds_unready < kWarmingSeconds; });
}

absl::Status NoneReady(v1::WorkerRole role) {
  return absl::UnavailableError(absl::StrCat("no ", RoleName(role), " worker is ready"));
}

// Those that are ready and have room for so many tokens.
std::vector<WorkerView> WithRoom(const std::vector<WorkerView>& workers, int64_t tokens) {
  std::vector<WorkerView> chosen;
  std::copy_if(workers.begin(), workers.end(), std::back_inserter(chosen), [tokens](const WorkerView& worker) {
    return worker.last->ready() && RequestBytes(*worker.hello, tokens) <= worker.free_memory_bytes;
  });
  return chosen;
}

absl::Status CheckRole(const std::vector<WorkerView>& workers, v1::WorkerRole role, int64_t tokens,
                       const std::string& field) {
  if (!AnyReadyOrWarming(workers)) return NoneReady(role);
  const WorkerView* largest = nullptr;
  for (const WorkerView& worker : workers) {
    if (RequestBytes(*worker.hello, tokens) <= worker.hello->request_memory_bytes()) return absl::OkStatus();
    if (largest == nullptr || worker.hello->request_memory_bytes() > largest->hello->request_memory_bytes()) {
      largest = &worker;
    }
  }
  return absl::InvalidArgumentError(absl::StrCat(field, " must fit the memory of a ", RoleName(role), " worker, got ",
                                                 tokens, " tokens, which take ", RequestBytes(*largest->hello, tokens),
                                                 " bytes; the largest, ", largest->hello->name(), ", has ",
                                                 largest->hello->request_memory_bytes()));
}

absl::Status NoRoom(const std::vector<WorkerView>& workers, v1::WorkerRole role, int64_t tokens) {
  if (workers.empty()) return absl::UnavailableError(absl::StrCat("no ", RoleName(role), " worker is left"));
  if (!AnyReadyOrWarming(workers)) return NoneReady(role);
  return absl::ResourceExhaustedError(
      absl::StrCat("no ", RoleName(role), " worker has room for ", tokens, " tokens now"));
}

PlacedWorker Put(Registry* registry, const WorkerView& worker, int64_t prefill_tokens, int64_t memory_tokens) {
  const InstanceId instance = worker.hello->instance_id();
  return {.instance = instance,
          .title = absl::StrCat(RoleName(worker.hello->role()), " worker ", worker.hello->name()),
          .client = worker.client,
          .load = registry->Load(instance, prefill_tokens, RequestBytes(*worker.hello, memory_tokens))};
}

}  // namespace

absl::Status Placer::CheckPossible(const Demand& demand) const {
  const std::vector<WorkerView> workers = registry_->Workers();
  RETURN_IF_ERROR(
      CheckRole(OfRole(workers, v1::WORKER_ROLE_PREFILL), v1::WORKER_ROLE_PREFILL, demand.prompt_tokens, "prompt"));
  return CheckRole(OfRole(workers, v1::WORKER_ROLE_DECODE), v1::WORKER_ROLE_DECODE, demand.total_tokens,
                   "prompt + max_tokens");
}

absl::StatusOr<Placement> Placer::Place(const Demand& demand) const {
  const std::vector<WorkerView> workers = registry_->Workers();
  const std::vector<WorkerView> all_prefill = OfRole(workers, v1::WORKER_ROLE_PREFILL);
  const std::vector<WorkerView> all_decode = OfRole(workers, v1::WORKER_ROLE_DECODE);
  const std::vector<WorkerView> prefill = WithRoom(all_prefill, demand.prompt_tokens);
  const std::vector<WorkerView> decode = WithRoom(all_decode, demand.total_tokens);
  if (prefill.empty()) return NoRoom(all_prefill, v1::WORKER_ROLE_PREFILL, demand.prompt_tokens);
  if (decode.empty()) return NoRoom(all_decode, v1::WORKER_ROLE_DECODE, demand.total_tokens);

  std::vector<PlanCandidate> candidates;
  for (const WorkerView& worker : prefill) {
    candidates.push_back({.instance = worker.hello->instance_id(),
                          .name = worker.hello->name(),
                          .load_tokens = worker.load_tokens(),
                          .max_span_tokens = worker.hello->max_span_tokens()});
  }
  Placement placement;
  placement.plan = PlanSpans(demand.prompt_tokens, policy_, std::move(candidates));

  const std::vector<int64_t> tokens = TokensPerWorker(placement.plan);
  for (int i = 0; i < placement.plan.prefill_workers_size(); ++i) {
    const auto chosen = std::find_if(prefill.begin(), prefill.end(), [&](const WorkerView& worker) {
      return worker.hello->instance_id() == placement.plan.prefill_workers(i).instance_id();
    });
    placement.prefill.push_back(Put(registry_, *chosen, tokens[i], demand.prompt_tokens));
  }
  // The most free memory keeps room for the next long request longest and spreads short ones.
  const WorkerView& roomiest = *std::max_element(
      decode.begin(), decode.end(),
      [](const WorkerView& a, const WorkerView& b) { return a.free_memory_bytes < b.free_memory_bytes; });
  placement.plan.mutable_decode_worker()->set_instance_id(roomiest.hello->instance_id());
  placement.plan.mutable_decode_worker()->set_name(roomiest.hello->name());
  placement.decode = Put(registry_, roomiest, 0, demand.total_tokens);
  return placement;
}

PrefillLoad Placer::Load() const {
  PrefillLoad load;
  for (const WorkerView& worker : OfRole(registry_->Workers(), v1::WORKER_ROLE_PREFILL)) {
    if (!worker.last->ready()) continue;
    load.tokens += worker.load_tokens();
    load.tokens_per_second += worker.last->tokens_per_second();
  }
  return load;
}

}  // namespace salamander::router
