#include "prefill_worker/service.h"

#include <utility>

#include "common/service/grpc_status.h"

namespace salamander::prefill {

grpc::ServerUnaryReactor* PrefillService::Reserve(grpc::CallbackServerContext* context,
                                                  const v1::ReserveRequest* request, v1::ReserveResponse* response) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  executor_->Reserve(*request, [reactor, response](absl::StatusOr<v1::ReserveResponse> reserved) {
    if (reserved.ok()) *response = *std::move(reserved);
    reactor->Finish(service::ToGrpc(reserved.status()));
  });
  return reactor;
}

grpc::ServerUnaryReactor* PrefillService::Release(grpc::CallbackServerContext* context,
                                                  const v1::ReleaseRequest* request, v1::ReleaseResponse*) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  executor_->Release(*request, [reactor] { reactor->Finish(grpc::Status::OK); });
  return reactor;
}

grpc::ServerBidiReactor<v1::PrefillCommand, v1::PrefillEvent>* PrefillService::Prefill(grpc::CallbackServerContext*) {
  return PrefillStream::Open(executor_->StreamHandlers());
}

}  // namespace salamander::prefill
