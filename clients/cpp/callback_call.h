// A Generate over gRPC's callback API. Internal to the client library.
#ifndef SALAMANDER_CLIENTS_CPP_CALLBACK_CALL_H_
#define SALAMANDER_CLIENTS_CPP_CALLBACK_CALL_H_

#include <grpcpp/grpcpp.h>

#include <memory>

#include "clients/cpp/client.h"
#include "salamander/v1/inference.grpc.pb.h"

namespace salamander::client {

// Starts the call, which keeps itself alive until its on_end has returned. The stub's channel outlives it.
std::shared_ptr<CallbackCall> StartCallbackCall(v1::Inference::Stub& stub, v1::GenerateRequest request,
                                                const CallOptions& options, GenerateCallbacks callbacks);

}  // namespace salamander::client

#endif  // SALAMANDER_CLIENTS_CPP_CALLBACK_CALL_H_
