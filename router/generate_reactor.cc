#include "router/generate_reactor.h"

#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/service/grpc_status.h"

namespace salamander::router {
namespace {

// The name gRPC's own retry policies look for.
constexpr char kRetryAfterKey[] = "grpc-retry-pushback-ms";

}  // namespace

void AddRetryAfter(grpc::CallbackServerContext* call, double seconds) {
  const auto milliseconds = static_cast<int64_t>(std::ceil(seconds * 1000));
  call->AddTrailingMetadata(kRetryAfterKey, absl::StrCat(milliseconds));
}

void GenerateReactor::Start(const RequestContext* context, const v1::GenerateRequest& request, ApiKey::Ptr key) {
  std::shared_ptr<Request> started =
      Request::Start(context, request, {.deadline = call_->deadline(), .trace = service::TraceContextOf(*call_)},
                     std::move(key), this);
  bool cancelled;
  {
    std::lock_guard lock(mutex_);
    request_ = started;
    cancelled = cancelled_;
  }
  if (cancelled) started->Cancel();
}

void GenerateReactor::Send(v1::GenerateResponse message) {
  std::lock_guard lock(mutex_);
  if (broken_) return;
  if (const v1::GenerateResponse* next = writes_.Push(std::move(message))) StartWrite(next);
}

// In both: the end is not under the lock, as OnDone may delete this object, and the mutex with it, before that returns.
void GenerateReactor::Complete(v1::GenerateResponse last) {
  const v1::GenerateResponse* next = nullptr;
  {
    std::lock_guard lock(mutex_);
    finish_ = grpc::Status::OK;
    if (!broken_) {
      next = writes_.Push(std::move(last));
      if (next == nullptr) return;  // OnWriteDone does it.
    }
  }
  if (next != nullptr) {
    StartWriteAndFinish(next, {}, grpc::Status::OK);
  } else {
    Finish(grpc::Status::OK);
  }
}

void GenerateReactor::Fail(const absl::Status& status, std::optional<double> retry_after_seconds) {
  const grpc::Status end = service::ToGrpc(status);
  {
    std::lock_guard lock(mutex_);
    if (retry_after_seconds.has_value()) AddRetryAfter(call_, *retry_after_seconds);
    finish_ = end;
    if (!writes_.empty()) return;  // OnWriteDone does it.
  }
  Finish(end);
}

void GenerateReactor::OnWriteDone(bool ok) {
  std::lock_guard lock(mutex_);
  if (!ok) {
    broken_ = true;
    writes_.DropWaiting();
  }
  // OnDone waits for this reaction to return.
  const v1::GenerateResponse* next = writes_.Pop();
  if (next != nullptr && finish_.has_value() && writes_.size() == 1) {
    StartWriteAndFinish(next, {}, *finish_);
  } else if (next != nullptr) {
    StartWrite(next);
  } else if (finish_.has_value()) {
    Finish(*finish_);
  }
}

void GenerateReactor::OnCancel() {
  std::shared_ptr<Request> request;
  {
    std::lock_guard lock(mutex_);
    cancelled_ = true;
    request = request_;
  }
  if (request != nullptr) request->Cancel();
}

}  // namespace salamander::router
