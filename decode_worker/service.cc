#include "decode_worker/service.h"

#include <utility>

#include "common/service/grpc_status.h"

namespace salamander::decode {

grpc::ServerUnaryReactor* DecodeService::Reserve(grpc::CallbackServerContext* context,
                                                 const v1::ReserveRequest* request, v1::ReserveResponse* response) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  batcher_->Reserve(*request, [reactor, response](absl::StatusOr<v1::ReserveResponse> reserved) {
    if (reserved.ok()) *response = *std::move(reserved);
    reactor->Finish(service::ToGrpc(reserved.status()));
  });
  return reactor;
}

grpc::ServerUnaryReactor* DecodeService::Release(grpc::CallbackServerContext* context,
                                                 const v1::ReleaseRequest* request, v1::ReleaseResponse*) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  batcher_->Release(*request, [reactor] { reactor->Finish(grpc::Status::OK); });
  return reactor;
}

grpc::ServerBidiReactor<v1::DecodeCommand, v1::DecodeEvent>* DecodeService::Decode(grpc::CallbackServerContext*) {
  return DecodeStream::Open(batcher_->StreamHandlers());
}

}  // namespace salamander::decode
