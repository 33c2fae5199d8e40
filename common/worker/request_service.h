// Reserve and Release of a worker's gRPC service, which are the same for both roles.
#ifndef SALAMANDER_COMMON_WORKER_REQUEST_SERVICE_H_
#define SALAMANDER_COMMON_WORKER_REQUEST_SERVICE_H_

#include <utility>

#include "common/service/grpc_status.h"
#include "common/worker/request_table.h"
#include "salamander/v1/cluster.pb.h"

namespace salamander::worker {

// `Service` is the callback service that gRPC generated.
template <typename Service, typename Request>
class RequestService : public Service {
 public:
  // The table outlives the server that serves this.
  explicit RequestService(RequestTable<Request>* requests) : requests_(requests) {}

  grpc::ServerUnaryReactor* Reserve(grpc::CallbackServerContext* context, const v1::ReserveRequest* request,
                                    v1::ReserveResponse* response) final {
    grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
    requests_->Reserve(*request, [reactor, response](absl::StatusOr<v1::ReserveResponse> reserved) {
      if (reserved.ok()) *response = *std::move(reserved);
      reactor->Finish(service::ToGrpc(reserved.status()));
    });
    return reactor;
  }

  grpc::ServerUnaryReactor* Release(grpc::CallbackServerContext* context, const v1::ReleaseRequest* request,
                                    v1::ReleaseResponse*) final {
    grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
    requests_->Release(*request, [reactor] { reactor->Finish(grpc::Status::OK); });
    return reactor;
  }

 protected:
  // What the service's streaming method returns.
  typename Request::Stream* OpenStream() { return Request::Stream::Open(requests_->StreamHandlers()); }

 private:
  RequestTable<Request>* const requests_;
};

}  // namespace salamander::worker

#endif  // SALAMANDER_COMMON_WORKER_REQUEST_SERVICE_H_
