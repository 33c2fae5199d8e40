// Asks a server what grpc.health.v1 and server reflection say, as grpcurl would.
#ifndef SALAMANDER_TESTS_COMMON_SERVICE_PROBE_H_
#define SALAMANDER_TESTS_COMMON_SERVICE_PROBE_H_

#include <string>

#include "absl/status/statusor.h"
#include "common/service/channel.h"

namespace salamander::testing {

// Whether `service` ("" is the whole server) is serving; NOT_FOUND if the server has none of that name.
absl::StatusOr<bool> IsServing(const std::string& address, const std::string& service,
                               const service::ChannelSecurity& security = {});

// The serialized answer to reflection's list_services, which has the services' full names in it.
absl::StatusOr<std::string> ListServices(const std::string& address, const service::ChannelSecurity& security = {});

}  // namespace salamander::testing

#endif  // SALAMANDER_TESTS_COMMON_SERVICE_PROBE_H_
