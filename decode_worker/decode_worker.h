// The decode worker process as an object.
#ifndef SALAMANDER_DECODE_WORKER_DECODE_WORKER_H_
#define SALAMANDER_DECODE_WORKER_DECODE_WORKER_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "common/base/memory_ledger.h"
#include "common/service/worker_options.h"
#include "common/transport/transport.h"

namespace salamander::decode {

struct DecodeWorkerOptions : service::WorkerOptions {
  // Sequences decoded in one step; others wait.
  int64_t max_batch = 64;
};

class DecodeWorker {
 public:
  // `transport` null: UCX by the options. Serving when it returns.
  static absl::StatusOr<std::unique_ptr<DecodeWorker>> Start(const DecodeWorkerOptions& options,
                                                             std::unique_ptr<transport::Transport> transport = nullptr);
  virtual ~DecodeWorker() = default;
  virtual std::string address() const = 0;
  virtual std::string metrics_address() const = 0;
  virtual MemoryLedger::Snapshot memory() const = 0;
  // Readiness off, no new reservations; returns when running requests ended or the grace is over (they then end).
  virtual void Drain(double grace_seconds) = 0;
};

}  // namespace salamander::decode

#endif  // SALAMANDER_DECODE_WORKER_DECODE_WORKER_H_
