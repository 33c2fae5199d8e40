// The gRPC service of a prefill worker.
#ifndef SALAMANDER_PREFILL_WORKER_SERVICE_H_
#define SALAMANDER_PREFILL_WORKER_SERVICE_H_

#include "common/worker/request_service.h"
#include "prefill_worker/request.h"
#include "salamander/v1/cluster.grpc.pb.h"

namespace salamander::prefill {

class PrefillService final : public worker::RequestService<v1::PrefillWorker::CallbackService, Request> {
 public:
  using RequestService::RequestService;

  grpc::ServerBidiReactor<v1::PrefillCommand, v1::PrefillEvent>* Prefill(
      grpc::CallbackServerContext* context) override {
    return OpenStream(*context, "Prefill");
  }
};

}  // namespace salamander::prefill

#endif  // SALAMANDER_PREFILL_WORKER_SERVICE_H_
