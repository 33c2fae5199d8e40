// Whether a worker that says hello may join: pure functions.
#ifndef SALAMANDER_ROUTER_HELLO_CHECKS_H_
#define SALAMANDER_ROUTER_HELLO_CHECKS_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "salamander/v1/cluster.pb.h"

namespace salamander::router {

// The hello by itself: INVALID_ARGUMENT naming field and value.
absl::Status CheckHello(const v1::WorkerHello& hello);

// Against the router's own model: FAILED_PRECONDITION naming both fingerprints. An empty `fingerprint` (a router
// without weights) accepts any.
absl::Status CheckModel(const v1::WorkerHello& hello, const std::string& fingerprint);

// Against one live member: FAILED_PRECONDITION if model, element type or stream version differ, ALREADY_EXISTS if it is
// another process with the same name.
absl::Status CheckAgainst(const v1::WorkerHello& hello, const v1::WorkerHello& member);

// Bytes that a request of so many tokens takes on the worker.
int64_t RequestBytes(const v1::WorkerHello& hello, int64_t tokens);

// "prefill", "decode".
std::string RoleName(v1::WorkerRole role);

}  // namespace salamander::router

#endif  // SALAMANDER_ROUTER_HELLO_CHECKS_H_
