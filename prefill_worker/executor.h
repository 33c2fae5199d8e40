// The prefill worker's engine: holds the requests, steps their spans, publishes what they make.
//
// Everything happens on one engine thread; the public methods hand over to it and return at once. A request's memory is
// given back on one path (Close): no more steps, its sends end, its receives are drained, its sequence is freed.
#ifndef SALAMANDER_PREFILL_WORKER_EXECUTOR_H_
#define SALAMANDER_PREFILL_WORKER_EXECUTOR_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/engine/forward.h"
#include "common/stream/publisher.h"
#include "common/stream/receiver.h"
#include "common/worker/engine_loop.h"
#include "common/worker/host.h"
#include "common/worker/live_count.h"
#include "common/worker/request_memory.h"
#include "prefill_worker/metrics.h"
#include "prefill_worker/prefill_worker.h"
#include "prefill_worker/request.h"
#include "salamander/v1/cluster.pb.h"

namespace salamander::prefill {

class Executor {
 public:
  // `host` outlives it.
  static absl::StatusOr<std::unique_ptr<Executor>> Create(worker::Host* host, const PrefillWorkerOptions& options);
  // No call of a service is under way any more. Ends what is left, and waits for its memory.
  ~Executor();

  // Any thread. `done` runs on the engine thread, within one step of a span.
  void Reserve(const v1::ReserveRequest& request, std::function<void(absl::StatusOr<v1::ReserveResponse>)> done);
  void Release(const v1::ReleaseRequest& request, std::function<void()> done);
  PrefillStream::Handlers StreamHandlers();

  // From now on reservations are refused with UNAVAILABLE.
  void StopReserving();
  // Ends every request with `status`.
  void EndAll(const absl::Status& status);

  worker::LiveCount& live() { return live_; }
  const Load& load() const { return load_; }
  stream::Publisher& publisher() { return *publisher_; }
  int64_t request_bytes() const { return request_bytes_; }
  int64_t free_request_bytes() const { return memory_->free_bytes(); }

 private:
  using Requests = std::map<uint64_t, std::unique_ptr<Request>>;  // by epoch

  explicit Executor(worker::Host* host, const PrefillWorkerOptions& options);
  absl::Status Prepare();

  // --- executor.cc: requests come and go
  absl::StatusOr<v1::ReserveResponse> DoReserve(const v1::ReserveRequest& request);
  absl::Status CheckSpans(const v1::Plan& plan, int self) const;
  absl::Status CheckLinks(const v1::Plan& plan, int self) const;
  void OnCommand(const PrefillStream::Ptr& stream, const v1::PrefillCommand& command);
  void OnHalfClose(const PrefillStream::Ptr& stream);
  void Claim(const PrefillStream::Ptr& stream, const v1::PrefillStart& start);
  absl::Status TakeStart(Request& request, const v1::PrefillStart& start);
  void OnSpanFinished(Request& request, int32_t span);
  Request* Find(uint64_t epoch);
  bool Transition(Request& request, RequestEvent event, const std::string& why);
  // Finishes the stream with `status` and gives the memory back as soon as nothing uses it.
  void Close(Request& request, const absl::Status& status, const std::string& outcome);
  void RetireIfIdle(Request& request);
  void FreeSlot(OwnSpan& span);

  // --- executor_turn.cc: spans are stepped and their items published
  double Turn();
  // Seconds until the next lease ends.
  double EndOverdue();
  void StepSpan(Request& request, size_t position);
  void StartSpan(Request& request, OwnSpan& span);
  void ReportProgress(Request& request, const OwnSpan& span);
  absl::Status PublishStep(Request& request, size_t position, int64_t layer, engine::SpanPhase phase);
  absl::Status PublishState(Request& request, size_t position, const stream::ItemId& id);
  absl::Status PublishHidden(Request& request, size_t position);
  // `keep` lives until every send has ended.
  void Publish(Request& request, size_t position, const stream::ItemId& id,
               std::vector<absl::Span<const std::byte>> source, std::shared_ptr<void> keep);
  void OnPublished(uint64_t epoch, size_t position, const absl::Status& status);
  void FinishCompute(Request& request, size_t position);
  void FinishSpanIfSent(Request& request, size_t position);
  void FinishRequestIfSent(Request& request);

  worker::Host* const host_;
  const PrefillWorkerOptions options_;
  Load load_;
  PrefillMetrics metrics_;
  worker::LiveCount live_;
  worker::EngineLoop loop_;
  std::unique_ptr<engine::Workspace> workspace_;
  std::vector<std::unique_ptr<engine::SpanActivations>> slots_;
  std::vector<engine::SpanActivations*> free_slots_;
  std::unique_ptr<stream::Receiver> receiver_;
  std::unique_ptr<stream::Publisher> publisher_;
  int64_t request_bytes_ = 0;
  std::unique_ptr<worker::RequestMemory> memory_;
  Requests requests_;
  uint64_t next_order_ = 0;
  bool reserving_ = true;
};

}  // namespace salamander::prefill

#endif  // SALAMANDER_PREFILL_WORKER_EXECUTOR_H_
