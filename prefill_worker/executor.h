// The prefill worker's engine: steps the spans of the requests in its table, publishes what they make. Everything
// happens on one engine thread.
#ifndef SALAMANDER_PREFILL_WORKER_EXECUTOR_H_
#define SALAMANDER_PREFILL_WORKER_EXECUTOR_H_

#include <cstdint>
#include <deque>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/engine/forward.h"
#include "common/stream/publisher.h"
#include "common/worker/engine_loop.h"
#include "common/worker/host.h"
#include "common/worker/request_table.h"
#include "prefill_worker/metrics.h"
#include "prefill_worker/prefill_worker.h"
#include "prefill_worker/request.h"
#include "salamander/v1/cluster.pb.h"

namespace salamander::prefill {

class Executor final : public worker::RequestHooks<Request> {
 public:
  // `host` outlives it.
  static absl::StatusOr<std::unique_ptr<Executor>> Create(worker::Host* host, const PrefillWorkerOptions& options);
  // No call of a service is under way any more. Ends what is left, and waits for its memory.
  ~Executor();

  worker::RequestTable<Request>& requests() { return *requests_; }
  const Load& load() const { return load_; }
  stream::Publisher& publisher() { return *publisher_; }

 private:
  Executor(worker::Host* host, const PrefillWorkerOptions& options);
  absl::Status Prepare();

  // --- executor.cc: requests come and go
  absl::StatusOr<std::unique_ptr<Request>> Admit(const v1::ReserveRequest& request) override;
  absl::Status TakeStart(Request& request, const v1::PrefillStart& start) override;
  void OnHalfClose(Request& request) override;
  void OnClose(Request& request) override;
  absl::Status CheckSpans(const v1::Plan& plan, int self) const;
  absl::Status CheckLinks(const v1::Plan& plan, int self) const;
  void FreeSlot(OwnSpan& span);

  // --- executor_turn.cc: spans are stepped and their items published
  double Turn();
  void StepSpan(Request& request, size_t position);
  // Marks a step's place in the device's queue, and waits until the device is not too far behind, or at the end of a
  // span has done all.
  absl::Status Record(bool wait_for_all);
  void StartSpan(Request& request, OwnSpan& span);
  void ReportProgress(Request& request, const OwnSpan& span);
  absl::Status PublishStep(Request& request, size_t position, int64_t layer, engine::SpanPhase phase);
  // Bytes that the last step writes to the device.
  stream::ItemSource OnDevice() const;
  absl::Status PublishHidden(Request& request, size_t position);
  // `keep` lives until every send has ended.
  void Publish(Request& request, size_t position, const stream::ItemId& id, stream::ItemSource source,
               std::shared_ptr<void> keep);
  void OnPublished(uint64_t epoch, size_t position, const absl::Status& status);
  void FinishCompute(Request& request, size_t position);
  void FinishSpanIfSent(Request& request, size_t position);
  void FinishRequestIfSent(Request& request);

  worker::Host* const host_;
  const PrefillWorkerOptions options_;
  Load load_;
  PrefillMetrics metrics_;
  worker::EngineLoop loop_;
  std::unique_ptr<engine::Workspace> workspace_;
  std::vector<std::unique_ptr<engine::SpanActivations>> slots_;
  std::vector<engine::SpanActivations*> free_slots_;
  std::unique_ptr<stream::Publisher> publisher_;
  std::unique_ptr<worker::RequestTable<Request>> requests_;
  uint64_t next_order_ = 0;
  std::deque<std::shared_ptr<kernels::Event>> steps_;  // the device may be at the first
  std::shared_ptr<kernels::Event> last_step_;
};

}  // namespace salamander::prefill

#endif  // SALAMANDER_PREFILL_WORKER_EXECUTOR_H_
