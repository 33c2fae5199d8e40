// The decode worker: receives what prefill workers send for a request, and generates its tokens.
#ifndef SALAMANDER_DECODE_WORKER_DECODE_WORKER_H_
#define SALAMANDER_DECODE_WORKER_DECODE_WORKER_H_

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "common/service/worker_options.h"
#include "common/transport/transport.h"
#include "common/worker/device.h"
#include "common/worker/worker.h"

namespace salamander::decode {

struct DecodeWorkerOptions : service::WorkerOptions {
  // Sequences decoded in one step; others wait.
  int64_t max_batch = 64;
};

// `transport` null: UCX by the options. Serving when it returns.
absl::StatusOr<std::unique_ptr<worker::Worker>> StartWorker(const DecodeWorkerOptions& options,
                                                            std::unique_ptr<transport::Transport> transport = nullptr);
// Beside other roles of this process on one device.
absl::StatusOr<std::unique_ptr<worker::Worker>> StartWorkerOn(std::shared_ptr<worker::Device> device,
                                                              const DecodeWorkerOptions& options,
                                                              std::unique_ptr<transport::Transport> transport);

}  // namespace salamander::decode

#endif  // SALAMANDER_DECODE_WORKER_DECODE_WORKER_H_
