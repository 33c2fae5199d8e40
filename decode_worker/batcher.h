// The decode worker's engine: receives what the requests in its table need, decodes all that are ready in one batch.
//
// Continuous batching (Orca, OSDI'22): every step runs all sequences of the batch; one that has become ready joins at
// the next step, one that has finished or was cancelled leaves before it.
//
// Everything happens on one engine thread.
#ifndef SALAMANDER_DECODE_WORKER_BATCHER_H_
#define SALAMANDER_DECODE_WORKER_BATCHER_H_

#include <deque>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/engine/forward.h"
#include "common/model/tokenizer.h"
#include "common/worker/engine_loop.h"
#include "common/worker/host.h"
#include "common/worker/request_table.h"
#include "decode_worker/decode_worker.h"
#include "decode_worker/metrics.h"
#include "decode_worker/request.h"
#include "salamander/v1/cluster.pb.h"

namespace salamander::decode {

class Batcher final : public worker::RequestHooks<Request> {
 public:
  // `host` outlives it.
  static absl::StatusOr<std::unique_ptr<Batcher>> Create(worker::Host* host, const DecodeWorkerOptions& options);
  // No call of a service is under way any more. Ends what is left, and waits for its memory.
  ~Batcher();

  worker::RequestTable<Request>& requests() { return *requests_; }
  const Load& load() const { return load_; }

 private:
  Batcher(worker::Host* host, const DecodeWorkerOptions& options);
  absl::Status Prepare();

  // --- batcher.cc: requests come and go
  absl::StatusOr<std::unique_ptr<Request>> Admit(const v1::ReserveRequest& request) override;
  absl::Status TakeStart(Request& request, const v1::DecodeStart& start) override;
  void OnHalfClose(Request&) override {}  // The end of the stream is the answer's, not the router's.
  void OnClose(Request& request) override;

  // --- batcher_turn.cc: requests are decoded
  double Turn();
  // One piece of one request's tiers. False if there is none to make.
  bool ExtendTiers();
  void CheckReady();
  void Ready(Request& request);
  // Fills the batch from the queue; the new ones' first tokens come from their hidden rows.
  void Join();
  void Step();
  // The requests' next tokens, if the step that computed their logits went well.
  absl::StatusOr<absl::Span<const engine::Draw>> DrawAll(absl::Span<Request* const> requests, const absl::Status& step);
  // Emits every request's draw; if there is none closes them, naming `what` failed.
  void EmitAll(absl::Span<Request* const> requests, const absl::StatusOr<absl::Span<const engine::Draw>>& draws,
               std::string_view what);
  // Takes the request's next token and sends it.
  void Emit(Request& request, const engine::Draw& draw);
  void SendFinished(Request& request, engine::StopReason reason);

  worker::Host* const host_;
  const DecodeWorkerOptions options_;
  Load load_;
  DecodeMetrics metrics_;
  worker::EngineLoop loop_;
  std::unique_ptr<model::Tokenizer> tokenizer_;  // null if the model has none
  std::unique_ptr<engine::DecodeForward> forward_;
  std::unique_ptr<worker::RequestTable<Request>> requests_;
  std::deque<Request*> waiting_;  // in the order in which they became ready
  std::vector<Request*> batch_;   // in the order of joining
};

}  // namespace salamander::decode

#endif  // SALAMANDER_DECODE_WORKER_BATCHER_H_
