// All addresses behind a name, where gRPC would pick one.
#ifndef SALAMANDER_COMMON_SERVICE_RESOLVE_H_
#define SALAMANDER_COMMON_SERVICE_RESOLVE_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace salamander::service {

// "host:port" as sorted "address:port", one for each address of the host ("[address]:port" for IPv6). A host with
// addresses of both families counts by its IPv4 ones only, since both would lead to the same process. Blocks as long as
// the system's resolver does. INVALID_ARGUMENT if it is not host:port, UNAVAILABLE naming host and reason if the host
// is not known now.
absl::StatusOr<std::vector<std::string>> ResolveAll(const std::string& target);

// The host of such a target is an address already, so that it resolves to itself for ever.
bool IsAddress(const std::string& target);

}  // namespace salamander::service

#endif  // SALAMANDER_COMMON_SERVICE_RESOLVE_H_
