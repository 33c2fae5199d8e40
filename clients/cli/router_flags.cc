#include "clients/cli/router_flags.h"

#include <cstdlib>

#include "common/base/status_macros.h"
#include "common/service/secret_file.h"
#include "common/service/security.h"

namespace salamander::cli {
namespace {

constexpr char kKeyVariable[] = "SALAMANDER_API_KEY";

}  // namespace

void RouterFlags::AddTo(FlagSet& flags) {
  flags.Add("target", &target, "HOST:PORT of the router");
  flags.Add("tls_ca", &tls_ca, "PEM file of the roots that the router's certificate is verified against: TLS is on");
  flags.Add("tls_cert", &tls_cert, "PEM file of this client's certificate, for routers that ask for one");
  flags.Add("tls_key", &tls_key, "PEM file of its private key");
  flags.Add("tls_server_name", &tls_server_name, "the name in the router's certificate (default: the target's host)");
  flags.Add("api_key_file", &api_key_file, "file with this client's API key (default: SALAMANDER_API_KEY, if set)");
  flags.Add("cluster_token_file", &cluster_token_file, "file with the cluster's token, for operators without a key");
}

absl::Status RouterFlags::Check() const {
  if (target.empty()) return absl::InvalidArgumentError("--target must be given");
  return absl::OkStatus();
}

absl::StatusOr<client::Client> RouterFlags::Connect(client::ClientOptions options) const {
  options.tls_ca = tls_ca;
  options.tls_cert = tls_cert;
  options.tls_key = tls_key;
  options.tls_server_name = tls_server_name;
  if (!api_key_file.empty()) {
    ASSIGN_OR_RETURN(options.api_key, service::ReadSecretFile(api_key_file));
  } else if (const char* key = std::getenv(kKeyVariable); key != nullptr) {
    options.api_key = key;
  }
  if (!cluster_token_file.empty()) {
    ASSIGN_OR_RETURN(options.cluster_token, service::ReadClusterToken(cluster_token_file));
  }
  return client::Client::Connect(target, options);
}

}  // namespace salamander::cli
