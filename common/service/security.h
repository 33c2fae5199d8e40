// What a process has to prove who it is, and to check others by. Everything comes from files, so that Kubernetes
// Secrets mount as they are. docs/operations.md says how to make them.
#ifndef SALAMANDER_COMMON_SERVICE_SECURITY_H_
#define SALAMANDER_COMMON_SERVICE_SECURITY_H_

#include <cstddef>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace salamander::service {

// Paths of PEM files. A server needs all three; a client only `ca`, and the other two where the server wants to know
// who it is. Files that change are taken up by new connections within `reload_seconds`; old connections stay.
struct TlsFiles {
  std::string cert;  // own certificate, then those that lead to a root
  std::string key;   // its private key
  std::string ca;    // roots that peers' certificates are verified against
  // The name that a server's certificate must have; empty: the host it was dialed by.
  std::string server_name;
  // Servers: whether clients must have a certificate of `ca` too.
  bool client_certificates = true;
  int reload_seconds = 10;

  bool empty() const { return cert.empty() && key.empty() && ca.empty(); }
};

// "require" or "none", the values of --tls_client_auth.
absl::StatusOr<bool> ParseClientAuth(const std::string& text);

struct Security {
  TlsFiles tls;
  // The cluster's shared secret; empty: there is none.
  std::string cluster_token;
  // Listens beyond loopback without TLS and without a cluster token all the same.
  bool allow_insecure = false;
};

inline constexpr size_t kMinClusterTokenBytes = 16;

// The token in a file, without the newline at its end. INVALID_ARGUMENT naming the file if it is too short.
absl::StatusOr<std::string> ReadClusterToken(const std::string& path);

// INVALID_ARGUMENT naming `flag` (as in "--listen") if a process with this `security` must not listen there.
absl::Status CheckExposure(const std::string& flag, const std::string& address, const Security& security);

}  // namespace salamander::service

#endif  // SALAMANDER_COMMON_SERVICE_SECURITY_H_
