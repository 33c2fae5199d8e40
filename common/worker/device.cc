#include "common/worker/device.h"

#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <utility>

#include "common/base/status_macros.h"
#include "common/worker/device_memory.h"

namespace salamander::worker {
namespace {

// A part of a GPU's free memory stays free: the CUDA libraries take some as they go.
absl::StatusOr<int64_t> Capacity(const service::WorkerOptions& options, kernels::Ops& ops) {
  if (options.memory_bytes > 0) return options.memory_bytes;
  if (ops.host_memory()) return DefaultMemoryBytes();
  ASSIGN_OR_RETURN(const int64_t free, ops.MemoryBytes());
  return ops.own_bytes() + free / 10 * 9;
}

}  // namespace

absl::StatusOr<std::shared_ptr<Device>> Device::Open(const service::WorkerOptions& options, int roles) {
  std::shared_ptr<Device> device(new Device());
  device->threads_ = options.threads;
  device->roles_to_come_ = roles;
  ASSIGN_OR_RETURN(device->spec_, kernels::ParseDevice(options.device));
  ASSIGN_OR_RETURN(const model::LoadFormat format, model::ParseLoadFormat(options.load_format));
  ASSIGN_OR_RETURN(device->checkpoint_, model::Checkpoint::Open(options.model, format));
  ASSIGN_OR_RETURN(device->ops_, kernels::CreateOps(device->spec_, options.threads));
  ASSIGN_OR_RETURN(const int64_t capacity, Capacity(options, *device->ops_));
  device->ledger_ = std::make_unique<MemoryLedger>(capacity);
  ASSIGN_OR_RETURN(device->own_memory_, device->ledger_->Take(MemoryOwner::kWorkspace, device->ops_->own_bytes()));
  ASSIGN_OR_RETURN(device->model_,
                   engine::Model::Load(*device->checkpoint_, device->ops_.get(), device->ledger_.get()));
  if (!device->ops_->host_memory()) device->item_memory_ = std::make_unique<DeviceMemory>(device->ops_.get());
  return device;
}

absl::StatusOr<Device::Queue> Device::NewQueue() {
  Queue queue;
  if (!std::exchange(first_queue_taken_, true)) {
    queue.ops = ops_.get();
  } else {
    ASSIGN_OR_RETURN(queue.own, kernels::CreateOps(spec_, threads_));
    ASSIGN_OR_RETURN(queue.own_memory, ledger_->Take(MemoryOwner::kWorkspace, queue.own->own_bytes()));
    queue.ops = queue.own.get();
  }
  queue.model = model_->Share(queue.ops);
  return queue;
}

int64_t Device::ClaimForRequests(int64_t free) {
  const int64_t part = (free - claimed_bytes_) / std::max(1, roles_to_come_--);
  claimed_bytes_ += part;
  return part;
}

int64_t DefaultMemoryBytes() {
  int64_t limit = int64_t{sysconf(_SC_PHYS_PAGES)} * sysconf(_SC_PAGE_SIZE);
  // "max" when the group has no limit: then nothing is read and the machine's memory stands.
  int64_t group = 0;
  if (std::ifstream file("/sys/fs/cgroup/memory.max"); file >> group) limit = std::min(limit, group);
  return limit / 5 * 4;
}

}  // namespace salamander::worker
