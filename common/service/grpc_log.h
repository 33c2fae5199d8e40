// gRPC's own messages into this process's log, instead of raw lines on stderr.
#ifndef SALAMANDER_COMMON_SERVICE_GRPC_LOG_H_
#define SALAMANDER_COMMON_SERVICE_GRPC_LOG_H_

namespace salamander::service {

// gRPC's errors become warnings here (most are about one connection, and the call on it gets a status too), the rest is
// for debugging. For programs, not libraries: it replaces gRPC's logger for the whole process.
void RouteGrpcLogs();

}  // namespace salamander::service

#endif  // SALAMANDER_COMMON_SERVICE_GRPC_LOG_H_
