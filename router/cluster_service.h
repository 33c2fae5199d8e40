// What workers and operators call: Register, GetStatus.
#ifndef SALAMANDER_ROUTER_CLUSTER_SERVICE_H_
#define SALAMANDER_ROUTER_CLUSTER_SERVICE_H_

#include <functional>

#include "common/service/cluster_gate.h"
#include "router/registry.h"
#include "salamander/v1/cluster.grpc.pb.h"

namespace salamander::router {

// Runs on gRPC's threads. The registry outlives it, and it outlives its server.
class ClusterService final : public v1::Cluster::CallbackService {
 public:
  using Authenticate = std::function<absl::Status(const grpc::CallbackServerContext&)>;
  // `describe` fills in what the registry does not know: version, model, queue. Members of the cluster may ask for the
  // status, and who passes `authenticate`. `gate` outlives it.
  ClusterService(Registry* registry, service::ClusterGate* gate, Authenticate authenticate,
                 std::function<void(v1::GetStatusResponse*)> describe)
      : registry_(registry), gate_(gate), authenticate_(std::move(authenticate)), describe_(std::move(describe)) {}

  grpc::ServerBidiReactor<v1::WorkerMessage, v1::RouterMessage>* Register(grpc::CallbackServerContext* call) override;
  grpc::ServerUnaryReactor* GetStatus(grpc::CallbackServerContext* call, const v1::GetStatusRequest* request,
                                      v1::GetStatusResponse* response) override;

 private:
  Registry* const registry_;
  service::ClusterGate* const gate_;
  const Authenticate authenticate_;
  const std::function<void(v1::GetStatusResponse*)> describe_;
};

}  // namespace salamander::router

#endif  // SALAMANDER_ROUTER_CLUSTER_SERVICE_H_
