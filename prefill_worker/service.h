// The gRPC service of a prefill worker: hands every call to the executor.
#ifndef SALAMANDER_PREFILL_WORKER_SERVICE_H_
#define SALAMANDER_PREFILL_WORKER_SERVICE_H_

#include "prefill_worker/executor.h"
#include "salamander/v1/cluster.grpc.pb.h"

namespace salamander::prefill {

// The executor outlives the server that serves this.
class PrefillService final : public v1::PrefillWorker::CallbackService {
 public:
  explicit PrefillService(Executor* executor) : executor_(executor) {}

  grpc::ServerUnaryReactor* Reserve(grpc::CallbackServerContext* context, const v1::ReserveRequest* request,
                                    v1::ReserveResponse* response) override;
  grpc::ServerUnaryReactor* Release(grpc::CallbackServerContext* context, const v1::ReleaseRequest* request,
                                    v1::ReleaseResponse* response) override;
  grpc::ServerBidiReactor<v1::PrefillCommand, v1::PrefillEvent>* Prefill(grpc::CallbackServerContext* context) override;

 private:
  Executor* const executor_;
};

}  // namespace salamander::prefill

#endif  // SALAMANDER_PREFILL_WORKER_SERVICE_H_
