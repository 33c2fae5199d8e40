// Runs requests against a router the way a client does, and collects what comes back.
//
//   Answer answer = Generate(stub, GreedyRequest(tokens, 8));
//   RunningRequest running(stub, request);              // or in the background
//   running.WaitUntil([](const Answer& so_far) { return !so_far.tokens.empty(); });
//   running.Cancel();
#ifndef SALAMANDER_TESTS_TESTING_GENERATE_H_
#define SALAMANDER_TESTS_TESTING_GENERATE_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "salamander/v1/inference.grpc.pb.h"

namespace salamander::testing {

inline constexpr double kRequestSeconds = 60;

struct Answer {
  // OK only if the stream ended well and its events came in the order that inference.proto promises.
  absl::Status status;
  std::string request_id;  // empty until accepted
  std::vector<int32_t> tokens;
  std::string text;
  std::vector<v1::TokenLogprob> logprobs;
  v1::Progress progress;  // the last one
  v1::Finished finished;
};

// Tokens as they are, greedy, never ending early.
v1::GenerateRequest GreedyRequest(absl::Span<const int32_t> tokens, int64_t max_tokens);

class RunningRequest {
 public:
  // `stub` is used by the constructor only.
  RunningRequest(v1::Inference::Stub* stub, const v1::GenerateRequest& request,
                 double deadline_seconds = kRequestSeconds);
  // Cancels the request if it still runs, and waits for its end.
  ~RunningRequest();
  RunningRequest(const RunningRequest&) = delete;
  RunningRequest& operator=(const RunningRequest&) = delete;

  void Cancel();
  // Waits until `condition` holds on what came so far. False if the request ended, or `seconds` passed, before.
  bool WaitUntil(const std::function<bool(const Answer&)>& condition, double seconds = kRequestSeconds);
  // Waits for the end.
  const Answer& Wait();

 private:
  class Call;
  std::unique_ptr<Call> call_;
};

Answer Generate(v1::Inference::Stub* stub, const v1::GenerateRequest& request,
                double deadline_seconds = kRequestSeconds);

}  // namespace salamander::testing

#endif  // SALAMANDER_TESTS_TESTING_GENERATE_H_
