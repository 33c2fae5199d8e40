// How this project sets UCX up: what it needs for peers that die, and what a server process cannot have.
#ifndef SALAMANDER_COMMON_TRANSPORT_UCX_CONFIG_H_
#define SALAMANDER_COMMON_TRANSPORT_UCX_CONFIG_H_

#include <ucp/api/ucp.h>

#include <memory>
#include <string>
#include <string_view>
#include <type_traits>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/transport/ucx_transport.h"

namespace salamander::transport {

// UNAVAILABLE for the loss of a peer, INTERNAL otherwise: "what: UCX's words".
absl::Status UcxError(std::string_view what, ucs_status_t status);

struct UcxContextDeleter {
  void operator()(ucp_context_h context) const { ucp_cleanup(context); }
};
using UcxContext = std::unique_ptr<std::remove_pointer_t<ucp_context_h>, UcxContextDeleter>;

absl::StatusOr<UcxContext> CreateUcxContext(const UcxOptions& options);

// "ucx 1.13.1, transports all, devices lo".
std::string DescribeUcx(const UcxOptions& options);

}  // namespace salamander::transport

#endif  // SALAMANDER_COMMON_TRANSPORT_UCX_CONFIG_H_
