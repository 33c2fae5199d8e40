// What a GenerateCall holds: gRPC's synchronous reader. Internal to the client library.
#ifndef SALAMANDER_CLIENTS_CPP_GENERATE_CALL_H_
#define SALAMANDER_CLIENTS_CPP_GENERATE_CALL_H_

#include <grpcpp/grpcpp.h>

#include <memory>
#include <optional>

#include "absl/status/status.h"
#include "clients/cpp/client.h"
#include "salamander/v1/inference.grpc.pb.h"

namespace salamander::client {

// What every call with these options has: gRPC's deadline, counted from now, and the trace context.
void Prepare(grpc::ClientContext& context, const CallOptions& options);
// Of an ended call: when the router said to come again, if it did.
std::optional<absl::Duration> RetryAfter(const grpc::ClientContext& context);
// What a stream is that ends well without its last event.
absl::Status EndedWithoutFinished();

struct GenerateCall::Impl {
  // Starts the call. The stub's channel outlives it.
  Impl(v1::Inference::Stub& stub, const v1::GenerateRequest& request, const CallOptions& options);
  ~Impl();

  absl::StatusOr<Event> Next();
  // Reads the call to its end, which it must have reached or be about to, and takes its status.
  absl::Status End();

  grpc::ClientContext context;  // TryCancel from any thread
  std::unique_ptr<grpc::ClientReader<v1::GenerateResponse>> reader;
  bool ended = false;
  absl::Status status;  // once ended: what Next returns from then on
};

}  // namespace salamander::client

#endif  // SALAMANDER_CLIENTS_CPP_GENERATE_CALL_H_
