#include "common/service/cluster_gate.h"

#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "common/base/secret.h"
#include "common/service/channel.h"

namespace salamander::service {

std::string MetadataValue(const grpc::CallbackServerContext& call, const char* key) {
  const auto found = call.client_metadata().find(key);
  if (found == call.client_metadata().end()) return "";
  return std::string(found->second.data(), found->second.size());
}

ClusterGate::ClusterGate(std::string token, Metrics* metrics)
    : token_(token.empty() ? "" : absl::BytesToHexString(token)),
      refused_(metrics->Counter("salamander_process_unauthenticated_calls_total",
                                "Calls refused because they did not show the cluster's token.")) {}

bool ClusterGate::HasToken(const grpc::CallbackServerContext& call) const {
  return IsSecret(MetadataValue(call, kClusterTokenKey), token_);
}

absl::Status ClusterGate::Check(const grpc::CallbackServerContext& call, const char* method) {
  if (token_.empty() || HasToken(call)) return absl::OkStatus();
  const bool none = MetadataValue(call, kClusterTokenKey).empty();
  refused_.Increment();
  log_.Write(LogLevel::kWarning, absl::StrCat(method, " from ", call.peer(),
                                              " refused: ", none ? "no cluster token" : "another cluster's token"));
  return absl::UnauthenticatedError(
      absl::StrCat(method, " is for members of the cluster: ", none ? "no token" : "the token is not the cluster's",
                   " (--cluster_token_file)"));
}

}  // namespace salamander::service
