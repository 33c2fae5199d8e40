#include "common/worker/request_memory.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/worker/host.h"
#include "common/worker/items.h"

namespace salamander::worker {
namespace {

constexpr double kLongestLeaseSeconds = 600;
// Receives of several requests that wait for slow peers should not queue up behind each other.
constexpr int kDrainThreads = 2;

}  // namespace

RequestMemory::RequestMemory(Host* host, EngineLoop* loop, int64_t budget_bytes)
    : model_(&host->model()),
      ledger_(&host->ledger()),
      item_memory_(host->device->item_memory()),
      receiver_(host->receiver.get()),
      loop_(loop),
      clock_(host->clock),
      budget_bytes_(budget_bytes),
      drain_("drain", kDrainThreads) {}

absl::StatusOr<std::unique_ptr<Reservation>> RequestMemory::Reserve(const v1::ReserveRequest& request, int worker,
                                                                    int64_t tokens) {
  if (!(request.lease_seconds() > 0 && request.lease_seconds() <= kLongestLeaseSeconds)) {
    return absl::InvalidArgumentError(
        absl::StrCat("lease_seconds: ", request.lease_seconds(), " is not above 0 and at most ", kLongestLeaseSeconds));
  }
  const int64_t needed = model_->SequenceBytes(tokens);
  if (needed > budget_bytes_) {
    return absl::InvalidArgumentError(absl::StrCat("request of ", tokens, " tokens needs ", needed,
                                                   " bytes, this worker has ", budget_bytes_, " for all requests"));
  }
  if (needed > free_bytes()) {
    return absl::ResourceExhaustedError(absl::StrCat("request of ", tokens, " tokens needs ", needed, " bytes, free ",
                                                     free_bytes(), " of ", budget_bytes_));
  }
  auto reservation = std::make_unique<Reservation>();
  reservation->request = request.request_id();
  reservation->plan = request.plan();
  reservation->worker = worker;
  reservation->lease_end = clock_->Now() + request.lease_seconds();
  ASSIGN_OR_RETURN(reservation->sequence, engine::Sequence::Create(*model_, *ledger_, tokens));
  // Zeros and page tables are there before a stream may write beside them.
  RETURN_IF_ERROR(model_->ops().Synchronize());
  reservation->hidden.resize(model_->config().hidden_size);
  reservation->subscription = receiver_->Subscribe(
      reservation->request,
      PlaceItems(reservation->plan, worker, *reservation->sequence, item_memory_, absl::MakeSpan(reservation->hidden)),
      [loop = loop_] { loop->Wake(); });
  reservation->epoch = reservation->subscription->epoch();
  reservation->secret = reservation->subscription->secret();
  used_bytes_ += needed;
  return reservation;
}

void RequestMemory::Retire(std::unique_ptr<Reservation> reservation, std::function<void()> done) {
  // std::function copies its closure, so ownership crosses the threads as a bare pointer.
  drain_.Post([this, owned = reservation.release(), done = std::move(done)]() mutable {
    owned->subscription.reset();
    loop_->Post([this, owned, done = std::move(done)] {
      used_bytes_ -= model_->SequenceBytes(owned->sequence->max_tokens());
      delete owned;
      done();
    });
  });
}

absl::StatusOr<int64_t> RequestBudget(Host& host, int64_t send_bytes, int64_t max_item_tokens) {
  const engine::Model& model = host.model();
  const MemoryLedger::Snapshot now = host.ledger().Read();
  int64_t transfers = host.options.transfer_buffer_bytes - now.held[static_cast<int>(MemoryOwner::kInTransfer)];
  if (send_bytes > 0) {
    // Outstanding bytes are encoded ones. The buffer they are in was sized for the worst case, up to 1.5 times as much,
    // and what comes from a device is also kept as it was.
    const int64_t item = std::max(max_item_tokens * model.sparse_shape().kv.token_bytes(), model.state_bytes());
    transfers += 3 * (send_bytes + item);
  }
  const int64_t budget = host.device->ClaimForRequests(now.free - std::max<int64_t>(transfers, 0));
  const int64_t least = model.SequenceBytes(1);
  if (budget < least) {
    return absl::InvalidArgumentError(absl::StrCat(
        "--memory_bytes: ", now.capacity, " leaves ", budget, " bytes for requests after ", now.capacity - now.free,
        " for weights and workspace and ", transfers, " for transfers; the shortest request takes ", least));
  }
  return budget;
}

}  // namespace salamander::worker
