// Lets only members of the cluster in: who shows its token.
#ifndef SALAMANDER_COMMON_SERVICE_CLUSTER_GATE_H_
#define SALAMANDER_COMMON_SERVICE_CLUSTER_GATE_H_

#include <grpcpp/support/server_callback.h>

#include <string>

#include "absl/status/status.h"
#include "common/base/limited_log.h"
#include "common/service/metrics.h"

namespace salamander::service {

// Any thread.
class ClusterGate {
 public:
  // `token` empty: everybody is a member. `metrics` outlives it.
  ClusterGate(std::string token, Metrics* metrics);

  // UNAUTHENTICATED unless the call comes from a member; counted, and logged with who asked for what.
  absl::Status Check(const grpc::CallbackServerContext& call, const char* method);
  // The same question, where it is no refusal: false if there is no token.
  bool HasToken(const grpc::CallbackServerContext& call) const;

 private:
  const std::string token_;
  prometheus::Counter& refused_;
  LimitedLog log_;
};

// The value of a call's metadata; empty if it has none of that name.
std::string MetadataValue(const grpc::CallbackServerContext& call, const char* key);

// A call with two streams that is over before it began. Deletes itself.
template <typename Request, typename Response>
class RefusedStream final : public grpc::ServerBidiReactor<Request, Response> {
 public:
  explicit RefusedStream(const grpc::Status& status) { this->Finish(status); }
  void OnDone() override { delete this; }
};

}  // namespace salamander::service

#endif  // SALAMANDER_COMMON_SERVICE_CLUSTER_GATE_H_
