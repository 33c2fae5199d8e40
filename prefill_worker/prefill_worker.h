// The prefill worker process as an object.
#ifndef SALAMANDER_PREFILL_WORKER_PREFILL_WORKER_H_
#define SALAMANDER_PREFILL_WORKER_PREFILL_WORKER_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "common/base/memory_ledger.h"
#include "common/service/worker_options.h"
#include "common/transport/transport.h"

namespace salamander::prefill {

struct PrefillWorkerOptions : service::WorkerOptions {
  int64_t max_span_tokens = 8192;
  // Spans begun and not finished; others wait. Each takes activations of max_span_tokens rows.
  int max_active_spans = 4;
};

class PrefillWorker {
 public:
  // `transport` null: UCX by the options. Serving when it returns.
  static absl::StatusOr<std::unique_ptr<PrefillWorker>> Start(
      const PrefillWorkerOptions& options, std::unique_ptr<transport::Transport> transport = nullptr);
  virtual ~PrefillWorker() = default;
  virtual std::string address() const = 0;
  virtual std::string metrics_address() const = 0;
  virtual MemoryLedger::Snapshot memory() const = 0;
  // Readiness off, no new reservations; returns when running requests ended or the grace is over (they then end).
  virtual void Drain(double grace_seconds) = 0;
};

}  // namespace salamander::prefill

#endif  // SALAMANDER_PREFILL_WORKER_PREFILL_WORKER_H_
