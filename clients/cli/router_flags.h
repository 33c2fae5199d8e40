// Flags of every command that calls a router: where it is, and what lets this command in.
#ifndef SALAMANDER_CLIENTS_CLI_ROUTER_FLAGS_H_
#define SALAMANDER_CLIENTS_CLI_ROUTER_FLAGS_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "clients/cli/flags.h"
#include "clients/cpp/client.h"

namespace salamander::cli {

struct RouterFlags {
  std::string target;
  std::string tls_ca, tls_cert, tls_key, tls_server_name;
  std::string api_key_file, cluster_token_file;

  void AddTo(FlagSet& flags);
  // INVALID_ARGUMENT naming the flag.
  absl::Status Check() const;
  // Reads the key from --api_key_file, or else takes SALAMANDER_API_KEY.
  // Fills in what the flags say.
  absl::StatusOr<client::Client> Connect(client::ClientOptions options = {}) const;
};

}  // namespace salamander::cli

#endif  // SALAMANDER_CLIENTS_CLI_ROUTER_FLAGS_H_
