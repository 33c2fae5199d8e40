// Reservations: the memory of requests, and the one way in which it is given back.
//
// A reservation is a sequence and the subscription that receives into it. It ends in this order, on every path: the
// owner's sends from it have ended (the owner's duty), the subscription is drained (on a thread of its own, as that may
// take as long as a peer needs), the sequence is freed (engine thread).
#ifndef SALAMANDER_COMMON_WORKER_REQUEST_MEMORY_H_
#define SALAMANDER_COMMON_WORKER_REQUEST_MEMORY_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/base/clock.h"
#include "common/base/memory_ledger.h"
#include "common/base/thread_pool.h"
#include "common/engine/model.h"
#include "common/engine/sequence.h"
#include "common/stream/receiver.h"
#include "common/worker/engine_loop.h"
#include "common/worker/host.h"
#include "salamander/v1/cluster.pb.h"

namespace salamander::worker {

struct Reservation {
  RequestId request = 0;
  uint64_t epoch = 0;
  std::string secret;  // of every item that may come
  v1::Plan plan;
  int worker = 0;  // own index in the plan, or stream::kDecodeWorker
  // When an unclaimed reservation ends, on the clock of its RequestMemory.
  double lease_end = 0;
  std::unique_ptr<engine::Sequence> sequence;
  std::vector<float> hidden;  // decode: where the hidden row is received
  std::unique_ptr<stream::Subscription> subscription;
};

// Engine thread only, but for free_bytes.
class RequestMemory {
 public:
  // Requests together may take `budget_bytes`; the rest of the ledger is for transfers. All outlive it.
  RequestMemory(Host* host, EngineLoop* loop, int64_t budget_bytes);
  // Every reservation has been retired and its `done` has run.
  ~RequestMemory() = default;

  // All or nothing, for a plan that CheckRequestPlan has passed. INVALID_ARGUMENT for a lease that cannot be, or if the
  // budget could never hold `tokens`; RESOURCE_EXHAUSTED if it cannot now. The engine is woken whenever an item
  // arrives.
  absl::StatusOr<std::unique_ptr<Reservation>> Reserve(const v1::ReserveRequest& request, int worker, int64_t tokens);
  // Nothing reads from or sends from the reservation any more. `done` runs on the engine thread, memory being back.
  void Retire(std::unique_ptr<Reservation> reservation, std::function<void()> done);
  // Any thread.
  int64_t free_bytes() const { return budget_bytes_ - used_bytes_; }

 private:
  const engine::Model* model_;
  MemoryLedger* ledger_;
  stream::ItemMemory* item_memory_;
  stream::Receiver* receiver_;
  EngineLoop* loop_;
  const Clock* clock_;
  const int64_t budget_bytes_;
  std::atomic<int64_t> used_bytes_{0};
  ThreadPool drain_;
};

// What the ledger has left for this role's requests once its transfers have the most they may take:
// transfer_buffer_bytes for items being received, and for items being sent, of which one more begins while less than
// `send_bytes` are outstanding; the largest has `max_item_tokens` tokens. At start, once. INVALID_ARGUMENT naming
// --memory_bytes if that is less than the shortest request takes.
absl::StatusOr<int64_t> RequestBudget(Host& host, int64_t send_bytes, int64_t max_item_tokens);

}  // namespace salamander::worker

#endif  // SALAMANDER_COMMON_WORKER_REQUEST_MEMORY_H_
