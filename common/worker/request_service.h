// Reserve and Release of a worker's gRPC service, which are the same for both roles.
#ifndef SALAMANDER_COMMON_WORKER_REQUEST_SERVICE_H_
#define SALAMANDER_COMMON_WORKER_REQUEST_SERVICE_H_

#include <string>
#include <utility>

#include "common/service/cluster_gate.h"
#include "common/service/grpc_status.h"
#include "common/service/trace_context.h"
#include "common/worker/request_table.h"
#include "salamander/v1/cluster.pb.h"

namespace salamander::worker {

// `Service` is the callback service that gRPC generated.
template <typename Service, typename Request>
class RequestService : public Service {
 public:
  // Both outlive the server that serves this. Calls need the cluster's token.
  RequestService(Host* host, RequestTable<Request>* requests)
      : requests_(requests), gate_(host->options.server.security.cluster_token, host->metrics.get()) {}

  grpc::ServerUnaryReactor* Reserve(grpc::CallbackServerContext* context, const v1::ReserveRequest* request,
                                    v1::ReserveResponse* response) final {
    grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
    if (absl::Status member = gate_.Check(*context, "Reserve"); !member.ok()) return Refuse(reactor, member);
    const std::string trace_id = service::TraceContextOf(*context).trace_id();
    requests_->Reserve(*request, trace_id, [reactor, response](absl::StatusOr<v1::ReserveResponse> reserved) {
      if (reserved.ok()) *response = *std::move(reserved);
      reactor->Finish(service::ToGrpc(reserved.status()));
    });
    return reactor;
  }

  grpc::ServerUnaryReactor* Release(grpc::CallbackServerContext* context, const v1::ReleaseRequest* request,
                                    v1::ReleaseResponse*) final {
    grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
    if (absl::Status member = gate_.Check(*context, "Release"); !member.ok()) return Refuse(reactor, member);
    requests_->Release(*request, [reactor] { reactor->Finish(grpc::Status::OK); });
    return reactor;
  }

 protected:
  // What the service's streaming method returns.
  grpc::ServerBidiReactor<typename Request::Command, typename Request::Event>* OpenStream(
      const grpc::CallbackServerContext& context, const char* method) {
    if (absl::Status member = gate_.Check(context, method); !member.ok()) {
      return new service::RefusedStream<typename Request::Command, typename Request::Event>(service::ToGrpc(member));
    }
    return Request::Stream::Open(requests_->StreamHandlers());
  }

 private:
  static grpc::ServerUnaryReactor* Refuse(grpc::ServerUnaryReactor* reactor, const absl::Status& status) {
    reactor->Finish(service::ToGrpc(status));
    return reactor;
  }

  RequestTable<Request>* const requests_;
  service::ClusterGate gate_;
};

}  // namespace salamander::worker

#endif  // SALAMANDER_COMMON_WORKER_REQUEST_SERVICE_H_
