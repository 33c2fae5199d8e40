// The one table between inside errors and gRPC's.
#ifndef SALAMANDER_COMMON_SERVICE_GRPC_STATUS_H_
#define SALAMANDER_COMMON_SERVICE_GRPC_STATUS_H_

#include <grpcpp/support/status.h>

#include "absl/status/status.h"

namespace salamander::service {

// absl's and gRPC's codes are the same numbers; messages are kept (cut at 4 KiB).
grpc::Status ToGrpc(const absl::Status& status);
absl::Status FromGrpc(const grpc::Status& status);

}  // namespace salamander::service

#endif  // SALAMANDER_COMMON_SERVICE_GRPC_STATUS_H_
