// salamander-decode-worker: the decode worker as a process.
#include "absl/flags/flag.h"
#include "common/worker/process.h"
#include "decode_worker/decode_worker.h"

using salamander::decode::DecodeWorkerOptions;

ABSL_FLAG(int64_t, max_batch, DecodeWorkerOptions().max_batch, "sequences decoded in one step; others wait");

int main(int argc, char** argv) {
  return salamander::worker::RunProgram(
      argc, argv,
      {.name = "decode-worker",
       .usage = "salamander-decode-worker: generates tokens for a Salamander cluster.",
       .start = [](const salamander::service::WorkerOptions& common) {
         DecodeWorkerOptions options{common};
         options.max_batch = absl::GetFlag(FLAGS_max_batch);
         return salamander::worker::OnlyWorker(salamander::decode::StartWorker(options));
       }});
}
