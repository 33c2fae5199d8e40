// One request as a router plays it against real workers: reserve, start, pass on what the legs say, end.
//
//   PlayedRequest request(legs, {.prompt = …, .max_tokens = 8, .span_tokens = 128});
//   ASSERT_OK(request.Reserve());
//   request.Start();
//   ASSERT_OK(request.Wait());      // request.tokens()
#ifndef SALAMANDER_TESTS_COMMON_WORKER_PLAYED_REQUEST_H_
#define SALAMANDER_TESTS_COMMON_WORKER_PLAYED_REQUEST_H_

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "common/base/ids.h"
#include "salamander/v1/cluster.grpc.pb.h"

namespace salamander::testing {

struct PlayedSpec {
  std::vector<int32_t> prompt;
  int64_t max_tokens = 8;
  int64_t span_tokens = 128;
  v1::Codec codec = v1::CODEC_LOSSLESS;
  double lease_seconds = 20;
  int32_t priority = 0;
  // Do not read the decode stream before Hear() or the end.
  bool deaf = false;
  // Greedy, no end of text, unless a test says otherwise here.
  std::function<void(v1::DecodeStart&)> decode_start;
  std::function<void(v1::PrefillStart&)> prefill_start;
};

class PlayedRequest {
 public:
  // How far the request is, over all legs.
  struct Seen {
    int spans_started = 0;
    int spans_done = 0;
    int prefills_done = 0;
    v1::PrefillDone sent;  // sums over the workers
    bool ready = false;
    bool finished = false;
    int ended = 0;  // legs
    std::vector<int32_t> tokens;
    std::vector<v1::TokenLogprob> logprobs;
    v1::DecodeFinished finish;
    absl::Status failure;  // the first leg's that failed by itself
  };

  // Hellos of the workers; spans go to the prefill workers in turn.
  PlayedRequest(const std::vector<v1::WorkerHello>& prefill, const v1::WorkerHello& decode, PlayedSpec spec);
  // Cancels what is running and waits for it.
  ~PlayedRequest();

  v1::Plan& plan() { return plan_; }
  RequestId id() const { return id_; }
  // All legs, the decode worker first; the first failure.
  absl::Status Reserve();
  void Release();
  void Start();
  // Until every leg has ended; the first failure, or OK.
  absl::Status Wait();
  void Cancel();
  void Hear();
  // False if it does not come to hold within 300 s: a sanitizer on a busy machine takes a minute for some.
  bool WaitUntil(const std::function<bool(const Seen&)>& condition);
  Seen seen() const;
  std::vector<int32_t> tokens() const { return seen().tokens; }

 private:
  template <typename Command, typename Event>
  struct Leg {
    grpc::ClientContext context;
    std::unique_ptr<grpc::ClientReaderWriter<Command, Event>> stream;
    std::mutex write_mutex;
    bool writable = true;
    uint64_t epoch = 0;
    std::string secret;
    std::thread reader;
  };
  struct PrefillLeg : Leg<v1::PrefillCommand, v1::PrefillEvent> {
    std::unique_ptr<v1::PrefillWorker::Stub> stub;
    std::vector<int32_t> tokens;
  };
  struct DecodeLeg : Leg<v1::DecodeCommand, v1::DecodeEvent> {
    std::unique_ptr<v1::DecodeWorker::Stub> stub;
  };

  v1::ReserveRequest ReserveRequestOf() const;
  void StartPrefill(PrefillLeg& leg, const v1::PrefillStart& start);
  void StartDecode();
  template <typename Command, typename Event>
  absl::Status End(Leg<Command, Event>& leg);
  void ReadPrefill(PrefillLeg& leg);
  void ReadDecode();
  void WaitUntilHearing();
  void OnPrefillEvent(const PrefillLeg& from, const v1::PrefillEvent& event);
  void OnDecodeEvent(const v1::DecodeEvent& event);
  void SpanFinished(const PrefillLeg& from, int32_t span);
  // One leg has ended: the others do too, well or badly.
  void OnEnd(const absl::Status& status, bool decode);
  void EndPrefills(bool well);

  const PlayedSpec spec_;
  const RequestId id_ = RandomId();
  v1::Plan plan_;
  std::vector<std::unique_ptr<PrefillLeg>> prefill_;
  DecodeLeg decode_;
  bool started_ = false;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  Seen seen_;
  bool cancelled_ = false;
  bool hears_;
};

}  // namespace salamander::testing

#endif  // SALAMANDER_TESTS_COMMON_WORKER_PLAYED_REQUEST_H_
