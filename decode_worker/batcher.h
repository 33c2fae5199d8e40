// The decode worker's engine: holds the requests, receives what they need, decodes all that are ready in one batch.
//
// Continuous batching (Orca, OSDI'22): every step runs all sequences of the batch; one that has become ready joins at
// the next step, one that has finished or was cancelled leaves before it.
//
// Everything happens on one engine thread; the public methods hand over to it and return at once. A request's memory is
// given back on one path (Close): no more steps, its receives are drained, its sequence is freed.
#ifndef SALAMANDER_DECODE_WORKER_BATCHER_H_
#define SALAMANDER_DECODE_WORKER_BATCHER_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/engine/forward.h"
#include "common/model/tokenizer.h"
#include "common/stream/receiver.h"
#include "common/worker/engine_loop.h"
#include "common/worker/host.h"
#include "common/worker/live_count.h"
#include "common/worker/request_memory.h"
#include "decode_worker/decode_worker.h"
#include "decode_worker/metrics.h"
#include "decode_worker/request.h"
#include "salamander/v1/cluster.pb.h"

namespace salamander::decode {

class Batcher {
 public:
  // `host` outlives it.
  static absl::StatusOr<std::unique_ptr<Batcher>> Create(worker::Host* host, const DecodeWorkerOptions& options);
  // No call of a service is under way any more. Ends what is left, and waits for its memory.
  ~Batcher();

  // Any thread. `done` runs on the engine thread, within one step.
  void Reserve(const v1::ReserveRequest& request, std::function<void(absl::StatusOr<v1::ReserveResponse>)> done);
  void Release(const v1::ReleaseRequest& request, std::function<void()> done);
  DecodeStream::Handlers StreamHandlers();

  // From now on reservations are refused with UNAVAILABLE.
  void StopReserving();
  // Ends every request with `status`.
  void EndAll(const absl::Status& status);

  worker::LiveCount& live() { return live_; }
  const Load& load() const { return load_; }
  int64_t request_bytes() const { return request_bytes_; }
  int64_t free_request_bytes() const { return memory_->free_bytes(); }

 private:
  using Requests = std::map<uint64_t, std::unique_ptr<Request>>;  // by epoch

  Batcher(worker::Host* host, const DecodeWorkerOptions& options);
  absl::Status Prepare();

  // --- batcher.cc: requests come and go
  absl::StatusOr<v1::ReserveResponse> DoReserve(const v1::ReserveRequest& request);
  void OnCommand(const DecodeStream::Ptr& stream, const v1::DecodeCommand& command);
  void Claim(const DecodeStream::Ptr& stream, const v1::DecodeStart& start);
  absl::Status TakeStart(Request& request, const v1::DecodeStart& start);
  void OnSpanFinished(Request& request, int32_t span);
  Request* Find(uint64_t epoch);
  bool Transition(Request& request, RequestEvent event, const std::string& why);
  // Finishes the stream with `status` and gives the memory back.
  void Close(Request& request, const absl::Status& status, const std::string& outcome);

  // --- batcher_turn.cc: requests are decoded
  double Turn();
  // Seconds until the next lease ends.
  double EndOverdue();
  // One piece of one request's tiers. False if there is none to make.
  bool ExtendTiers();
  void CheckReady();
  void Ready(Request& request);
  // Fills the batch from the queue; the new ones' first tokens come from their hidden rows.
  void Join();
  void Step();
  // Takes the request's next token from its logits and sends it.
  void Emit(Request& request, absl::Span<const float> logits);
  void SendFinished(Request& request, engine::StopReason reason);
  void CountRate(size_t tokens, double seconds);

  worker::Host* const host_;
  const DecodeWorkerOptions options_;
  Load load_;
  DecodeMetrics metrics_;
  worker::LiveCount live_;
  worker::EngineLoop loop_;
  std::unique_ptr<model::Tokenizer> tokenizer_;  // null if the model has none
  std::unique_ptr<engine::DecodeForward> forward_;
  std::unique_ptr<stream::Receiver> receiver_;
  int64_t request_bytes_ = 0;
  std::unique_ptr<worker::RequestMemory> memory_;
  Requests requests_;
  std::deque<Request*> waiting_;  // in the order in which they became ready
  std::vector<Request*> batch_;   // in the order of joining
  bool reserving_ = true;
};

}  // namespace salamander::decode

#endif  // SALAMANDER_DECODE_WORKER_BATCHER_H_
