// The gRPC service of a decode worker.
#ifndef SALAMANDER_DECODE_WORKER_SERVICE_H_
#define SALAMANDER_DECODE_WORKER_SERVICE_H_

#include "common/worker/request_service.h"
#include "decode_worker/request.h"
#include "salamander/v1/cluster.grpc.pb.h"

namespace salamander::decode {

class DecodeService final : public worker::RequestService<v1::DecodeWorker::CallbackService, Request> {
 public:
  using RequestService::RequestService;

  grpc::ServerBidiReactor<v1::DecodeCommand, v1::DecodeEvent>* Decode(grpc::CallbackServerContext* context) override {
    return OpenStream(*context, "Decode");
  }
};

}  // namespace salamander::decode

#endif  // SALAMANDER_DECODE_WORKER_SERVICE_H_
