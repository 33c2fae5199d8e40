#include "common/service/resolve.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <sys/socket.h>

#include <memory>
#include <set>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"

namespace salamander::service {
namespace {

struct HostPort {
  std::string host;  // an IPv6 address without its brackets
  std::string port;
};

absl::StatusOr<HostPort> Split(const std::string& target) {
  const size_t colon = target.rfind(':');
  if (colon == std::string::npos || colon == 0 || colon + 1 == target.size()) {
    return absl::InvalidArgumentError(absl::StrCat("must be host:port, got \"", target, "\""));
  }
  HostPort parts{target.substr(0, colon), target.substr(colon + 1)};
  if (parts.host.size() > 2 && parts.host.front() == '[' && parts.host.back() == ']') {
    parts.host = parts.host.substr(1, parts.host.size() - 2);
  }
  return parts;
}

absl::StatusOr<std::vector<std::string>> Lookup(const HostPort& parts, int flags) {
  const addrinfo hints{.ai_flags = flags, .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
  addrinfo* found = nullptr;
  if (const int error = getaddrinfo(parts.host.c_str(), nullptr, &hints, &found); error != 0) {
    return absl::UnavailableError(absl::StrCat("host ", parts.host, ": ", gai_strerror(error)));
  }
  const std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> free_found(found, &freeaddrinfo);
  std::set<std::string> v4, v6;
  char text[INET6_ADDRSTRLEN];
  for (const addrinfo* it = found; it != nullptr; it = it->ai_next) {
    if (it->ai_family == AF_INET) {
      const auto* address = reinterpret_cast<const sockaddr_in*>(it->ai_addr);
      v4.insert(absl::StrCat(inet_ntop(AF_INET, &address->sin_addr, text, sizeof(text)), ":", parts.port));
    } else if (it->ai_family == AF_INET6) {
      const auto* address = reinterpret_cast<const sockaddr_in6*>(it->ai_addr);
      v6.insert(absl::StrCat("[", inet_ntop(AF_INET6, &address->sin6_addr, text, sizeof(text)), "]:", parts.port));
    }
  }
  const std::set<std::string>& chosen = v4.empty() ? v6 : v4;
  return std::vector<std::string>(chosen.begin(), chosen.end());
}

}  // namespace

absl::StatusOr<std::vector<std::string>> ResolveAll(const std::string& target) {
  ASSIGN_OR_RETURN(const HostPort parts, Split(target));
  return Lookup(parts, 0);
}

bool IsAddress(const std::string& target) {
  const absl::StatusOr<HostPort> parts = Split(target);
  return parts.ok() && Lookup(*parts, AI_NUMERICHOST).ok();
}

}  // namespace salamander::service
