// What a worker's status means for the client.
#ifndef SALAMANDER_ROUTER_LEG_STATUS_H_
#define SALAMANDER_ROUTER_LEG_STATUS_H_

#include <string>

#include "absl/status/status.h"

namespace salamander::router {

// `title` is the worker, as "decode worker d0". What the worker decided keeps its code and gets the worker's name in
// front; what only says that the worker is not there any more, an unexpected OK included, is UNAVAILABLE.
absl::Status LegError(const std::string& title, const absl::Status& status);

// Whether a refused reservation is worth another try, later or elsewhere.
bool IsRetryable(const absl::Status& reserve_status);

}  // namespace salamander::router

#endif  // SALAMANDER_ROUTER_LEG_STATUS_H_
