#include "clients/cpp/generate_call.h"

#include <chrono>
#include <optional>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/string_view.h"
#include "clients/cpp/convert.h"
#include "common/service/grpc_status.h"
#include "common/service/trace_context.h"

namespace salamander::client {
namespace {

// Trailing metadata of a refused call, in milliseconds; the name is that of gRPC's retry protocol.
constexpr char kRetryAfterKey[] = "grpc-retry-pushback-ms";

}  // namespace

void Prepare(grpc::ClientContext& context, const CallOptions& options) {
  if (!options.traceparent.empty()) context.AddMetadata(service::kTraceparentKey, options.traceparent);
  if (!options.tracestate.empty()) context.AddMetadata(service::kTracestateKey, options.tracestate);
  if (options.timeout == absl::InfiniteDuration()) return;
  context.set_deadline(std::chrono::system_clock::now() + absl::ToChronoMicroseconds(options.timeout));
}

std::optional<absl::Duration> RetryAfter(const grpc::ClientContext& context) {
  const auto& trailing = context.GetServerTrailingMetadata();
  const auto found = trailing.find(kRetryAfterKey);
  int64_t milliseconds = 0;
  if (found == trailing.end() ||
      !absl::SimpleAtoi(absl::string_view(found->second.data(), found->second.size()), &milliseconds)) {
    return std::nullopt;
  }
  return absl::Milliseconds(milliseconds);
}

absl::Status EndedWithoutFinished() { return absl::InternalError("the router ended the stream without Finished"); }

GenerateCall::Impl::Impl(v1::Inference::Stub& stub, const v1::GenerateRequest& request, const CallOptions& options) {
  Prepare(context, options);
  reader = stub.Generate(&context, request);
}

GenerateCall::Impl::~Impl() {
  if (ended) return;
  context.TryCancel();
  // Nobody is left to tell; the status of a cancelled call says nothing new.
  End().IgnoreError();
}

absl::Status GenerateCall::Impl::End() {
  v1::GenerateResponse rest;
  while (reader->Read(&rest)) {
  }
  ended = true;
  return service::FromGrpc(reader->Finish());
}

absl::StatusOr<Event> GenerateCall::Impl::Next() {
  if (ended) return status;
  v1::GenerateResponse response;
  while (reader->Read(&response)) {
    std::optional<Event> event = FromProto(response);
    if (!event) continue;
    if (!std::holds_alternative<Finished>(*event)) return *std::move(event);
    status = End();
    if (!status.ok()) return status;
    status = absl::FailedPreconditionError("the call has ended: Finished was its last event");
    return *std::move(event);
  }
  status = End();
  if (status.ok()) status = EndedWithoutFinished();
  return status;
}

GenerateCall::GenerateCall(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
GenerateCall::~GenerateCall() = default;

absl::StatusOr<Event> GenerateCall::Next() { return impl_->Next(); }
std::optional<absl::Duration> GenerateCall::retry_after() const {
  if (!impl_->ended) return std::nullopt;
  return RetryAfter(impl_->context);
}

void GenerateCall::Cancel() { impl_->context.TryCancel(); }

}  // namespace salamander::client
