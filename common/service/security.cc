#include "common/service/security.h"

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/service/address.h"
#include "common/service/secret_file.h"

namespace salamander::service {

absl::StatusOr<std::string> ReadClusterToken(const std::string& path) {
  ASSIGN_OR_RETURN(std::string token, ReadSecretFile(path));
  if (token.size() >= kMinClusterTokenBytes) return token;
  return absl::InvalidArgumentError(absl::StrCat("the cluster token in ", path, " must have at least ",
                                                 kMinClusterTokenBytes, " bytes, got ", token.size()));
}

absl::StatusOr<bool> ParseClientAuth(const std::string& text) {
  if (text == "require") return true;
  if (text == "none") return false;
  return absl::InvalidArgumentError(absl::StrCat("--tls_client_auth must be require or none, got \"", text, "\""));
}

absl::Status CheckExposure(const std::string& flag, const std::string& address, const Security& security) {
  if (security.allow_insecure || IsLoopback(HostOf(address))) return absl::OkStatus();
  const std::string beyond = absl::StrCat(flag, "=", address, " is not loopback: it needs ");
  if (security.tls.cert.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat(beyond, "TLS (--tls_cert, --tls_key and --tls_ca), or --allow_insecure"));
  }
  if (security.cluster_token.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(beyond, "--cluster_token_file, or --allow_insecure"));
  }
  return absl::OkStatus();
}

}  // namespace salamander::service
