// host:port addresses as flags and peers give them.
#ifndef SALAMANDER_COMMON_SERVICE_ADDRESS_H_
#define SALAMANDER_COMMON_SERVICE_ADDRESS_H_

#include <string>

#include "absl/status/status.h"

namespace salamander::service {

// INVALID_ARGUMENT naming `field` unless `address` is host:port.
absl::Status CheckAddress(const std::string& field, const std::string& address);
// Of a checked address; an IPv6 host without its brackets.
std::string HostOf(const std::string& address);
std::string PortOf(const std::string& address);
// Whether only this machine reaches the host: localhost, 127.0.0.0/8 or ::1, as written. Names are not looked up.
bool IsLoopback(const std::string& host);

}  // namespace salamander::service

#endif  // SALAMANDER_COMMON_SERVICE_ADDRESS_H_
