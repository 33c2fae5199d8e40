// Between the plain structs of types.h and the protocol's messages. Internal to the client library.
#ifndef SALAMANDER_CLIENTS_CPP_CONVERT_H_
#define SALAMANDER_CLIENTS_CPP_CONVERT_H_

#include <optional>

#include "clients/cpp/types.h"
#include "salamander/v1/cluster.pb.h"
#include "salamander/v1/inference.pb.h"

namespace salamander::client {

v1::Prompt ToProto(const Prompt& prompt);
v1::GenerateRequest ToProto(const GenerateRequest& request);

// Nothing for a kind of event that this client does not know: a later version's router may send such.
std::optional<Event> FromProto(const v1::GenerateResponse& response);
ModelInfo FromProto(const v1::GetModelResponse& response);
ClusterStatus FromProto(const v1::GetStatusResponse& response);

}  // namespace salamander::client

#endif  // SALAMANDER_CLIENTS_CPP_CONVERT_H_
