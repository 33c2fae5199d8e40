// Workers that play a script: real gRPC servers in this process, which answer at once, fail, or hang where told to, and
// keep account of what they hold for requests.
#ifndef SALAMANDER_TESTS_ROUTER_FAKE_WORKER_H_
#define SALAMANDER_TESTS_ROUTER_FAKE_WORKER_H_

#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>

#include <condition_variable>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "common/base/ids.h"
#include "common/service/registration.h"
#include "salamander/v1/cluster.grpc.pb.h"

namespace salamander::router {

// Where a stream departs from the ordinary course.
enum class Stage {
  kNever,
  kAtStart,   // start was read, nothing sent
  kAfterOne,  // prefill: one span done; decode: one token sent
  kAtEnd,     // prefill: all spans done; decode: all tokens sent, not finished
};

struct Script {
  std::deque<grpc::Status> reserve;  // answers in order; OK once used up
  bool hang_in_reserve = false;      // until cancelled or its deadline
  Stage fail_at = Stage::kNever;
  grpc::Status failure;           // how it ends then; OK ends it early
  Stage hang_at = Stage::kNever;  // until the router ends the stream
  bool claims_foreign_span = false;
  bool tokens_before_ready = false;
  bool ready_at_once = false;  // not after the last span
  std::vector<int32_t> tokens = {7, 8, 9};
  std::string cluster_token = {};  // shown to the router
};

// The account and the scripted steps both kinds share.
class FakeWorker {
 public:
  FakeWorker(v1::WorkerRole role, std::string name, Script script);
  virtual ~FakeWorker();

  // From now on it beats at `router`, as ready.
  void Register(const std::string& router);
  // Ends the registration; the server goes on.
  void Unregister() { registration_.reset(); }
  // Ends registration and server at once, as a killed process would.
  void Kill();
  void SetFreeMemory(int64_t bytes);
  // What it says it prefills.
  void SetRate(double tokens_per_second);

  v1::WorkerHello& hello() { return hello_; }
  const std::string& name() const { return hello_.name(); }
  const std::string& address() const { return hello_.grpc_address(); }

  // Reservations neither released nor ended with their stream.
  int held() const;
  int reserved() const;                         // Reserve calls granted
  int released() const;                         // Release calls that found something
  int cancelled() const;                        // streams that the router cancelled
  int streams() const;                          // streams that have sent their start
  std::vector<int32_t> finished_spans() const;  // told by the router
  // False if it does not come true within 10 s. `condition` is called under the account's lock.
  template <typename Condition>
  bool WaitUntil(Condition condition) const {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, std::chrono::seconds(10), condition);
  }
  bool WaitUntilNothingHeld() const {
    return WaitUntil([this] { return held_.empty(); });
  }
  bool WaitForReserve() const {
    return WaitUntil([this] { return reserved_ > 0; });
  }
  bool WaitForStreams(int count) const {
    return WaitUntil([this, count] { return streams_ >= count; });
  }
  v1::PrefillStart last_prefill_start() const;
  v1::DecodeStart last_decode_start() const;
  // W3C trace contexts of the calls so far, as "traceparent" or "traceparent tracestate".
  std::vector<std::string> traces() const;

 protected:
  // Called by the constructors of the two kinds.
  void Serve(grpc::Service* service);
  grpc::Status Reserve(grpc::ServerContext* context, const v1::ReserveRequest& request, v1::ReserveResponse* response);
  grpc::Status Release(const v1::ReleaseRequest& request);
  // The plan of a reservation a stream claims; nothing if there is none.
  std::optional<v1::Plan> Claim(uint64_t epoch);
  void Drop(uint64_t epoch, bool cancelled);
  void AddFinishedSpan(int32_t span);
  void NoteTrace(const grpc::ServerContext& context);

  const Script script_;
  mutable std::mutex mutex_;
  mutable std::condition_variable changed_;
  v1::PrefillStart prefill_start_;
  v1::DecodeStart decode_start_;

 private:
  v1::WorkerHello hello_;
  std::unique_ptr<grpc::Server> server_;
  std::unique_ptr<service::Registration> registration_;
  std::deque<grpc::Status> reserve_answers_;
  std::map<uint64_t, v1::Plan> held_;
  uint64_t next_epoch_ = 1;
  int64_t free_memory_ = 0;
  double tokens_per_second_ = 0;
  int reserved_ = 0, released_ = 0, cancelled_ = 0, streams_ = 0;
  std::vector<int32_t> finished_spans_;
  std::vector<std::string> traces_;
};

class FakePrefillWorker final : public FakeWorker, public v1::PrefillWorker::Service {
 public:
  explicit FakePrefillWorker(std::string name, Script script = {});
  ~FakePrefillWorker() override { Kill(); }

 private:
  using Stream = grpc::ServerReaderWriter<v1::PrefillEvent, v1::PrefillCommand>;
  grpc::Status Reserve(grpc::ServerContext* context, const v1::ReserveRequest* request,
                       v1::ReserveResponse* response) override {
    return FakeWorker::Reserve(context, *request, response);
  }
  grpc::Status Release(grpc::ServerContext*, const v1::ReleaseRequest* request, v1::ReleaseResponse*) override {
    return FakeWorker::Release(*request);
  }
  grpc::Status Prefill(grpc::ServerContext* context, Stream* stream) override;
  grpc::Status Play(const v1::Plan& plan, Stream* stream);
};

class FakeDecodeWorker final : public FakeWorker, public v1::DecodeWorker::Service {
 public:
  explicit FakeDecodeWorker(std::string name, Script script = {});
  ~FakeDecodeWorker() override { Kill(); }

 private:
  using Stream = grpc::ServerReaderWriter<v1::DecodeEvent, v1::DecodeCommand>;
  grpc::Status Reserve(grpc::ServerContext* context, const v1::ReserveRequest* request,
                       v1::ReserveResponse* response) override {
    return FakeWorker::Reserve(context, *request, response);
  }
  grpc::Status Release(grpc::ServerContext*, const v1::ReleaseRequest* request, v1::ReleaseResponse*) override {
    return FakeWorker::Release(*request);
  }
  grpc::Status Decode(grpc::ServerContext* context, Stream* stream) override;
  grpc::Status Play(const v1::Plan& plan, Stream* stream);
};

}  // namespace salamander::router

#endif  // SALAMANDER_TESTS_ROUTER_FAKE_WORKER_H_
