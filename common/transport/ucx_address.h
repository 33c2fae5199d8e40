// What peers exchange as a UCX transport's address: UCX's own worker address behind a check, because UCX trusts such
// bytes and may crash on others.
//
//   magic 8 bytes · XXH3-64 of the rest, 8 bytes little-endian · worker address
#ifndef SALAMANDER_COMMON_TRANSPORT_UCX_ADDRESS_H_
#define SALAMANDER_COMMON_TRANSPORT_UCX_ADDRESS_H_

#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace salamander::transport {

std::string PackUcxAddress(std::string_view worker_address);
// INVALID_ARGUMENT if these are not the bytes that PackUcxAddress made.
absl::StatusOr<std::string> UnpackUcxAddress(std::string_view address);

}  // namespace salamander::transport

#endif  // SALAMANDER_COMMON_TRANSPORT_UCX_ADDRESS_H_
