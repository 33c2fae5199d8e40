// The prefill worker: computes the spans of prompts that plans give it, and sends what they make.
#ifndef SALAMANDER_PREFILL_WORKER_PREFILL_WORKER_H_
#define SALAMANDER_PREFILL_WORKER_PREFILL_WORKER_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "common/service/worker_options.h"
#include "common/transport/transport.h"
#include "common/worker/device.h"
#include "common/worker/worker.h"

namespace salamander::prefill {

struct PrefillWorkerOptions : service::WorkerOptions {
  int64_t max_span_tokens = 8192;
  // Spans begun and not finished; others wait. Each takes activations of max_span_tokens rows.
  int max_active_spans = 4;
};

// `transport` null: UCX by the options. Serving when it returns.
absl::StatusOr<std::unique_ptr<worker::Worker>> StartWorker(const PrefillWorkerOptions& options,
                                                            std::unique_ptr<transport::Transport> transport = nullptr);
// Beside other roles of this process on one device. Items for `neighbours`, which outlive the worker, stay on it.
absl::StatusOr<std::unique_ptr<worker::Worker>> StartWorkerOn(std::shared_ptr<worker::Device> device,
                                                              const PrefillWorkerOptions& options,
                                                              std::vector<worker::Host*> neighbours,
                                                              std::unique_ptr<transport::Transport> transport);

}  // namespace salamander::prefill

#endif  // SALAMANDER_PREFILL_WORKER_PREFILL_WORKER_H_
