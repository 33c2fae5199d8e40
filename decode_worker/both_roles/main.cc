// salamander-worker: a prefill worker and a decode worker in one process, on one device, with the weights there once.
// What the one hands to the other stays on the device.
#include "absl/flags/flag.h"
#include "common/base/status_macros.h"
#include "common/worker/process.h"
#include "decode_worker/decode_worker.h"
#include "prefill_worker/prefill_worker.h"

using salamander::decode::DecodeWorkerOptions;
using salamander::prefill::PrefillWorkerOptions;

ABSL_FLAG(int64_t, max_span_tokens, PrefillWorkerOptions().max_span_tokens, "longest span, a multiple of 128");
ABSL_FLAG(int32_t, max_active_spans, 2, "spans begun and not finished; each takes memory for max_span_tokens");
ABSL_FLAG(int64_t, max_batch, DecodeWorkerOptions().max_batch, "sequences decoded in one step; others wait");
ABSL_FLAG(std::string, decode_listen, "127.0.0.1:0",
          "host:port of the decode worker's gRPC; --listen is the prefill's");
ABSL_FLAG(std::string, decode_advertise, "",
          "host:port routers reach the decode worker at; default: where it listens. --advertise is the prefill's");
ABSL_FLAG(std::string, decode_metrics_listen, "127.0.0.1:0", "host:port of the decode worker's /metrics");

ABSL_FLAG(std::string, decode_health_listen, "", "host:port of the decode worker's --health_listen; empty: none");

namespace salamander {
namespace {

absl::StatusOr<std::vector<std::unique_ptr<worker::Worker>>> Start(const service::WorkerOptions& common) {
  PrefillWorkerOptions prefill{common};
  prefill.max_span_tokens = absl::GetFlag(FLAGS_max_span_tokens);
  prefill.max_active_spans = absl::GetFlag(FLAGS_max_active_spans);
  DecodeWorkerOptions decode{common};
  decode.max_batch = absl::GetFlag(FLAGS_max_batch);
  decode.advertise = absl::GetFlag(FLAGS_decode_advertise);
  decode.server.listen = absl::GetFlag(FLAGS_decode_listen);
  decode.server.metrics_listen = absl::GetFlag(FLAGS_decode_metrics_listen);
  decode.server.health_listen = absl::GetFlag(FLAGS_decode_health_listen);
  if (!common.name.empty()) {
    prefill.name = common.name + "-prefill";
    decode.name = common.name + "-decode";
  }
  ASSIGN_OR_RETURN(const std::shared_ptr<worker::Device> device, worker::Device::Open(common, /*roles=*/2));
  std::vector<std::unique_ptr<worker::Worker>> workers;
  ASSIGN_OR_RETURN(workers.emplace_back(), decode::StartWorkerOn(device, decode, /*transport=*/nullptr));
  ASSIGN_OR_RETURN(workers.emplace_back(),
                   prefill::StartWorkerOn(device, prefill, {workers[0]->host()}, /*transport=*/nullptr));
  return workers;
}

}  // namespace
}  // namespace salamander

int main(int argc, char** argv) {
  return salamander::worker::RunProgram(
      argc, argv,
      {.name = "worker",
       .usage = "salamander-worker: computes and generates for a Salamander cluster, both on one device.",
       .start = salamander::Start});
}
