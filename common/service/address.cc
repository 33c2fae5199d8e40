#include "common/service/address.h"

#include <arpa/inet.h>

#include "absl/strings/str_cat.h"

namespace salamander::service {

absl::Status CheckAddress(const std::string& field, const std::string& address) {
  if (const size_t colon = address.rfind(':'); colon != std::string::npos && colon > 0 && colon + 1 < address.size()) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrCat(field, " must be host:port, got \"", address, "\""));
}

std::string HostOf(const std::string& address) {
  const std::string host = address.substr(0, address.rfind(':'));
  const bool bracketed = host.size() >= 2 && host.front() == '[' && host.back() == ']';
  return bracketed ? host.substr(1, host.size() - 2) : host;
}

std::string PortOf(const std::string& address) { return address.substr(address.rfind(':') + 1); }

bool IsLoopback(const std::string& host) {
  if (host == "localhost") return true;
  if (in_addr v4{}; inet_pton(AF_INET, host.c_str(), &v4) == 1) return ntohl(v4.s_addr) >> 24 == 127;
  in6_addr v6{};
  return inet_pton(AF_INET6, host.c_str(), &v6) == 1 && IN6_IS_ADDR_LOOPBACK(&v6);
}

}  // namespace salamander::service
