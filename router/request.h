// One Generate request from arrival to end: the supervisor of all its legs.
//
// It checks and tokenizes, waits in the queue, reserves memory on the decode worker and then on all prefill workers,
// starts their streams, tells each of the others' finished spans, and relays progress and tokens to the client. All
// legs are one cancel scope: the first of them to fail, a worker's departure, the client's cancel or its deadline ends
// the others at once, and the client gets one status.
//
// Threads: everything runs on the request's own SerialExecutor, mostly on the gRPC thread that brought the event, as
// a change of threads costs more than most events; but for tokenizing, which has a pool of its own so that a long text
// does not delay other requests' tokens. The states and their order: request_state.h.
#ifndef SALAMANDER_ROUTER_REQUEST_H_
#define SALAMANDER_ROUTER_REQUEST_H_

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/clock.h"
#include "common/base/ids.h"
#include "common/base/thread_pool.h"
#include "common/base/timer_thread.h"
#include "common/service/trace_context.h"
#include "router/active_requests.h"
#include "router/admission.h"
#include "router/api_keys.h"
#include "router/backlog.h"
#include "router/client_stream.h"
#include "router/leg.h"
#include "router/model_info.h"
#include "router/placement.h"
#include "router/prefill_progress.h"
#include "router/request_state.h"
#include "router/request_timing.h"
#include "router/router_metrics.h"
#include "router/validate.h"
#include "salamander/v1/inference.pb.h"

namespace salamander::router {

// What all requests of a router share. Outlives them.
struct RequestContext {
  const Clock* clock;
  const ModelInfo* model;
  RequestLimits limits;
  double lease_seconds;
  ThreadPool* supervision;
  ThreadPool* text;
  TimerThread* timer;
  double max_request_seconds;  // 0: no limit
  double max_queue_seconds;    // 0: no limit
  Placer* placer;
  Admission* admission;
  Backlog* backlog;
  RouterMetrics* metrics;
  ActiveRequests* active;
  ApiKeys* keys;  // null: none are asked for
};

class Request : public std::enable_shared_from_this<Request> {
 public:
  using Deadline = std::chrono::system_clock::time_point;
  // What came with the request, beside the message.
  struct CallInfo {
    Deadline deadline;
    service::TraceContext trace;
  };

  // `client` is called until its Complete or Fail, one of which always comes. The request lives until its last leg has
  // ended. `key` has let it start, and is told of its end; null if the router has no keys.
  static std::shared_ptr<Request> Start(const RequestContext* context, const v1::GenerateRequest& wire,
                                        const CallInfo& call, ApiKey::Ptr key, ClientStream* client);
  ~Request();
  Request(const Request&) = delete;
  Request& operator=(const Request&) = delete;

  // The client went away or its deadline passed. Any thread, without a lock held.
  void Cancel();
  // The router itself ends it. Any thread.
  void Abort(const absl::Status& status);
  // Its time limit is over. Any thread.
  void Expire();
  // Any thread; ignored by requests that do not need the worker.
  void WorkerGone(InstanceId instance, const std::string& reason);

 private:
  struct Checked {
    v1::DecodeStart options;
    std::vector<int32_t> tokens;
  };

  Request(const RequestContext* context, const v1::GenerateRequest& wire, const CallInfo& call, ApiKey::Ptr key,
          ClientStream* client);

  // Checking and queueing.
  absl::StatusOr<Checked> Check() const;  // on the text pool
  void OnChecked(absl::StatusOr<Checked> checked);
  absl::Status CheckChances(const Demand& demand);
  // The request has begun to wait in the queue: it does not for ever.
  void LimitWait();
  // RESOURCE_EXHAUSTED, and when to come again.
  void Refuse(absl::string_view why);
  void OnAdmitted(absl::StatusOr<Placement> placement);

  // Reserving.
  void MakeLegs(Placement placement);
  void ReservePrefill();
  void OnPrefillReserved();
  void OnReserveFailed(const std::string& title, const absl::Status& status);

  // Running.
  void OpenLegs();
  v1::PrefillStart StartFor(int worker) const;
  void OnPrefillEvent(int worker, const v1::PrefillEvent& event);
  void OnSpanDone(int worker, int32_t span);
  void OnDecodeEvent(v1::DecodeEvent event);
  void OnReady();
  void OnTokens(v1::TokenChunk chunk);
  void OnCompleted(const v1::DecodeFinished& finished);
  void SendProgress();

  // Ending.
  void Fail(const absl::Status& status, std::optional<double> retry_after_seconds = std::nullopt);
  void EndLegs();
  // Its places in the queue and at its key, before the client hears of the end.
  void GiveBack(absl::StatusCode outcome);

  // Makes the transition and logs it. An event that makes no sense now fails the request as INTERNAL: false.
  bool Move(RequestEvent event, const std::string& detail = "");
  double SecondsLeft() const;
  // Both run the closure on the executor with this request alive; Run on the calling thread if nothing else runs there,
  // and so not with a lock held.
  template <typename Closure>
  void Post(Closure closure);
  template <typename Closure>
  void Run(Closure closure);

  const RequestContext& context_;
  const std::shared_ptr<void> alive_;  // first member to be made, last to go
  const RequestId id_;
  const CallInfo call_;
  const ApiKey::Ptr key_;
  v1::GenerateRequest wire_;
  ClientStream* client_;  // null after its end
  SerialExecutor executor_;

  RequestState state_ = RequestState::kChecking;
  RequestTiming timing_;
  v1::DecodeStart options_;
  int priority_ = 0;
  std::vector<int32_t> tokens_;
  std::optional<Admission::Ticket> ticket_;
  int waits_ = 0;                        // times that it went to the queue
  std::unique_ptr<Backlog::Part> work_;  // from acceptance until it is prefilled
  int lost_reserves_ = 0;
  // For the key's account.
  int64_t tokens_taken_ = 0;
  int64_t prompt_tokens_run_ = 0;
  int64_t completion_tokens_ = 0;

  v1::Plan plan_;
  std::vector<std::shared_ptr<PrefillLeg>> prefill_;  // as plan_.prefill_workers
  std::shared_ptr<DecodeLeg> decode_;
  int reserves_missing_ = 0;
  std::optional<PrefillProgress> progress_;
};

}  // namespace salamander::router

#endif  // SALAMANDER_ROUTER_REQUEST_H_
