// The transport over UCX active messages: rendezvous for payloads, one progress thread that sleeps when idle.
#ifndef SALAMANDER_COMMON_TRANSPORT_UCX_TRANSPORT_H_
#define SALAMANDER_COMMON_TRANSPORT_UCX_TRANSPORT_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "common/transport/transport.h"

namespace salamander::transport {

struct UcxOptions {
  // UCX_TLS and UCX_NET_DEVICES, when not empty; the environment's otherwise. "lo" keeps everything on loopback.
  std::string transports;
  std::string net_devices;
};

absl::StatusOr<std::unique_ptr<Transport>> CreateUcxTransport(const UcxOptions& options);

}  // namespace salamander::transport

#endif  // SALAMANDER_COMMON_TRANSPORT_UCX_TRANSPORT_H_
