// The gRPC service of a decode worker: hands every call to the batcher.
#ifndef SALAMANDER_DECODE_WORKER_SERVICE_H_
#define SALAMANDER_DECODE_WORKER_SERVICE_H_

#include "decode_worker/batcher.h"
#include "salamander/v1/cluster.grpc.pb.h"

namespace salamander::decode {

// The batcher outlives the server that serves this.
class DecodeService final : public v1::DecodeWorker::CallbackService {
 public:
  explicit DecodeService(Batcher* batcher) : batcher_(batcher) {}

  grpc::ServerUnaryReactor* Reserve(grpc::CallbackServerContext* context, const v1::ReserveRequest* request,
                                    v1::ReserveResponse* response) override;
  grpc::ServerUnaryReactor* Release(grpc::CallbackServerContext* context, const v1::ReleaseRequest* request,
                                    v1::ReleaseResponse* response) override;
  grpc::ServerBidiReactor<v1::DecodeCommand, v1::DecodeEvent>* Decode(grpc::CallbackServerContext* context) override;

 private:
  Batcher* const batcher_;
};

}  // namespace salamander::decode

#endif  // SALAMANDER_DECODE_WORKER_SERVICE_H_
