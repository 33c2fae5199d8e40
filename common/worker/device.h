// What the roles of one process share when they run on one device: its memory's ledger, the checkpoint, and the
// weights, which are there once.
#ifndef SALAMANDER_COMMON_WORKER_DEVICE_H_
#define SALAMANDER_COMMON_WORKER_DEVICE_H_

#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/memory_ledger.h"
#include "common/engine/model.h"
#include "common/model/checkpoint.h"
#include "common/service/worker_options.h"
#include "common/stream/item_memory.h"
#include "kernels/device.h"
#include "kernels/ops.h"

namespace salamander::worker {

class Device {
 public:
  // Opens the device that the options name and loads their model onto it. `roles` roles will use it.
  static absl::StatusOr<std::shared_ptr<Device>> Open(const service::WorkerOptions& options, int roles);

  MemoryLedger& ledger() { return *ledger_; }
  const model::Checkpoint& checkpoint() const { return *checkpoint_; }
  // Device memory as streams reach it; null where the host reads it directly.
  stream::ItemMemory* item_memory() { return item_memory_.get(); }

  // A queue of the device for one engine thread, and the model on it.
  struct Queue {
    std::unique_ptr<kernels::Ops> own;  // null: the one that loaded the model
    MemoryLedger::Hold own_memory;
    kernels::Ops* ops = nullptr;
    std::unique_ptr<engine::Model> model;
  };
  absl::StatusOr<Queue> NewQueue();

  // Memory that one role's requests may take, of `free` bytes: an equal part of what no other role was given. At start,
  // one role after the other.
  int64_t ClaimForRequests(int64_t free);

 private:
  Device() = default;

  kernels::DeviceSpec spec_;
  int threads_ = 1;
  int roles_to_come_ = 1;
  int64_t claimed_bytes_ = 0;
  bool first_queue_taken_ = false;
  std::unique_ptr<MemoryLedger> ledger_;
  std::unique_ptr<model::Checkpoint> checkpoint_;
  std::unique_ptr<kernels::Ops> ops_;
  MemoryLedger::Hold own_memory_;
  std::unique_ptr<engine::Model> model_;
  std::unique_ptr<stream::ItemMemory> item_memory_;
};

// 80% of what the machine, or the control group, allows this process.
int64_t DefaultMemoryBytes();

}  // namespace salamander::worker

#endif  // SALAMANDER_COMMON_WORKER_DEVICE_H_
