// What a role needs around it: a queue of the device, transport, the receiving end of the streams, metrics, identity. A
// role is given a Host and does not own it.
#ifndef SALAMANDER_COMMON_WORKER_HOST_H_
#define SALAMANDER_COMMON_WORKER_HOST_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/base/clock.h"
#include "common/base/ids.h"
#include "common/base/memory_ledger.h"
#include "common/engine/model.h"
#include "common/service/metrics.h"
#include "common/service/worker_options.h"
#include "common/stream/receiver.h"
#include "common/stream/stream_stats.h"
#include "common/transport/transport.h"
#include "common/worker/device.h"
#include "kernels/ops.h"
#include "salamander/v1/cluster.pb.h"

namespace salamander::worker {

// In order of construction; destroyed in reverse.
struct Host {
  InstanceId instance = 0;
  std::string name;
  service::WorkerOptions options;
  const Clock* clock = &RealClock();
  std::shared_ptr<Device> device;
  Device::Queue queue;
  std::unique_ptr<stream::StreamStats> stats;
  std::unique_ptr<service::Metrics> metrics;
  std::unique_ptr<transport::Transport> transport;
  std::unique_ptr<stream::Receiver> receiver;

  // Of other roles in this process, on the same device: items for them never leave it. They outlive this host.
  std::vector<Host*> neighbours;

  MemoryLedger& ledger() const { return device->ledger(); }
  kernels::Ops& ops() const { return *queue.ops; }
  const engine::Model& model() const { return *queue.model; }

  // What a request that ends with `status` is told. INTERNAL of a GPU's worker means that the GPU has failed: the
  // worker cannot go on, its process ends, saying why, and the request is UNAVAILABLE here, as others can do it.
  absl::Status ReportFailure(const absl::Status& status) const;

  // Takes a queue of `device` and opens the transport (`given`, or UCX by the options). `role` goes into the default
  // name and the metrics' names.
  static absl::StatusOr<std::unique_ptr<Host>> Create(const service::WorkerOptions& options, v1::WorkerRole role,
                                                      std::shared_ptr<Device> device,
                                                      std::unique_ptr<transport::Transport> given);

  // The hello that registers this process; `grpc_address` is where it listens. What depends on the role is not in it.
  v1::WorkerHello Hello(const std::string& grpc_address) const;
};

// "prefill" or "decode".
std::string RoleName(v1::WorkerRole role);
// What the names of a role's metrics begin with: "salamander_prefill_" or "salamander_decode_".
std::string MetricsPrefix(v1::WorkerRole role);

// Fills in the ledger's owners and capacity.
void ReportMemory(const MemoryLedger& ledger, v1::Heartbeat& heartbeat);

// Bytes that a request takes: PageGroupBytes per 1024 tokens begun, plus FixedBytes.
int64_t PageGroupBytes(const engine::Model& model);
int64_t FixedBytes(const engine::Model& model);

}  // namespace salamander::worker

#endif  // SALAMANDER_COMMON_WORKER_HOST_H_
