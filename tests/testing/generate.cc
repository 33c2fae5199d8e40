#include "tests/testing/generate.h"

#include <grpcpp/client_context.h>
#include <grpcpp/support/client_callback.h>

#include <chrono>
#include <condition_variable>
#include <mutex>

#include "common/service/grpc_status.h"

namespace salamander::testing {

class RunningRequest::Call final : public grpc::ClientReadReactor<v1::GenerateResponse> {
 public:
  Call(v1::Inference::Stub* stub, const v1::GenerateRequest& request, double deadline_seconds) : request_(request) {
    context_.set_deadline(std::chrono::system_clock::now() +
                          std::chrono::microseconds(static_cast<int64_t>(deadline_seconds * 1e6)));
    stub->async()->Generate(&context_, &request_, this);
    StartRead(&response_);
    StartCall();
  }

  void Cancel() { context_.TryCancel(); }

  bool WaitUntil(const std::function<bool(const Answer&)>& condition, double seconds) {
    std::unique_lock lock(mutex_);
    const bool woken =
        changed_.wait_for(lock, std::chrono::duration<double>(seconds), [&] { return done_ || condition(answer_); });
    return woken && condition(answer_);
  }

  const Answer& Wait() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return done_; });
    return answer_;
  }

 private:
  void OnReadDone(bool ok) override {
    if (!ok) return;
    std::lock_guard lock(mutex_);
    Take(response_);
    changed_.notify_all();
    StartRead(&response_);
  }

  void OnDone(const grpc::Status& status) override {
    // Under the lock to the end: the waiter destroys this object once it has it.
    std::lock_guard lock(mutex_);
    answer_.status = service::FromGrpc(status);
    if (status.ok() && !answer_.finished.has_usage()) order_ = absl::InternalError("the stream ended before Finished");
    if (!order_.ok()) answer_.status = order_;
    done_ = true;
    changed_.notify_all();
  }

  void Take(const v1::GenerateResponse& response) {
    const bool accepted = !answer_.request_id.empty();
    if (response.has_accepted() == accepted) order_ = absl::InternalError("Accepted must come first, and once");
    if (answer_.finished.has_usage()) order_ = absl::InternalError("an event came after Finished");
    switch (response.event_case()) {
      case v1::GenerateResponse::kAccepted:
        answer_.request_id = response.accepted().request_id();
        break;
      case v1::GenerateResponse::kProgress:
        if (!answer_.tokens.empty()) order_ = absl::InternalError("Progress came after tokens");
        answer_.progress = response.progress();
        break;
      case v1::GenerateResponse::kTokens:
        answer_.tokens.insert(answer_.tokens.end(), response.tokens().ids().begin(), response.tokens().ids().end());
        answer_.text += response.tokens().text();
        for (const v1::TokenLogprob& logprob : response.tokens().logprobs()) answer_.logprobs.push_back(logprob);
        break;
      case v1::GenerateResponse::kFinished:
        answer_.finished = response.finished();
        break;
      case v1::GenerateResponse::EVENT_NOT_SET:
        order_ = absl::InternalError("an event without content");
    }
  }

  const v1::GenerateRequest request_;
  grpc::ClientContext context_;
  v1::GenerateResponse response_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool done_ = false;
  absl::Status order_;
  Answer answer_;
};

RunningRequest::RunningRequest(v1::Inference::Stub* stub, const v1::GenerateRequest& request, double deadline_seconds)
    : call_(std::make_unique<Call>(stub, request, deadline_seconds)) {}

RunningRequest::~RunningRequest() {
  call_->Cancel();
  call_->Wait();
}

void RunningRequest::Cancel() { call_->Cancel(); }

bool RunningRequest::WaitUntil(const std::function<bool(const Answer&)>& condition, double seconds) {
  return call_->WaitUntil(condition, seconds);
}

const Answer& RunningRequest::Wait() { return call_->Wait(); }

v1::GenerateRequest GreedyRequest(absl::Span<const int32_t> tokens, int64_t max_tokens) {
  v1::GenerateRequest request;
  request.mutable_prompt()->mutable_tokens()->mutable_ids()->Add(tokens.begin(), tokens.end());
  request.set_max_tokens(max_tokens);
  request.mutable_sampling()->set_temperature(0);
  request.set_ignore_eos(true);
  return request;
}

Answer Generate(v1::Inference::Stub* stub, const v1::GenerateRequest& request, double deadline_seconds) {
  return RunningRequest(stub, request, deadline_seconds).Wait();
}

}  // namespace salamander::testing
