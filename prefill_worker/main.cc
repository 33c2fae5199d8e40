// salamander-prefill-worker: the prefill worker as a process.
#include "absl/flags/flag.h"
#include "common/worker/process.h"
#include "prefill_worker/prefill_worker.h"

using salamander::prefill::PrefillWorkerOptions;

ABSL_FLAG(int64_t, max_span_tokens, PrefillWorkerOptions().max_span_tokens, "longest span, a multiple of 128");
ABSL_FLAG(int32_t, max_active_spans, PrefillWorkerOptions().max_active_spans,
          "spans begun and not finished; each takes memory for max_span_tokens");

int main(int argc, char** argv) {
  return salamander::worker::RunProgram(
      argc, argv,
      {.name = "prefill-worker",
       .usage = "salamander-prefill-worker: computes spans of prompts for a Salamander cluster.",
       .start = [](const salamander::service::WorkerOptions& common) {
         PrefillWorkerOptions options{common};
         options.max_span_tokens = absl::GetFlag(FLAGS_max_span_tokens);
         options.max_active_spans = absl::GetFlag(FLAGS_max_active_spans);
         return salamander::worker::OnlyWorker(salamander::prefill::StartWorker(options));
       }});
}
