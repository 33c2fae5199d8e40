// salamander-prefill-worker: the prefill worker as a process.
#include "absl/flags/flag.h"
#include "common/base/status_macros.h"
#include "common/service/flags.h"
#include "common/worker/process.h"
#include "prefill_worker/prefill_worker.h"

ABSL_FLAG(int64_t, max_span_tokens, salamander::prefill::PrefillWorkerOptions().max_span_tokens,
          "longest span, a multiple of 128");
ABSL_FLAG(int32_t, max_active_spans, salamander::prefill::PrefillWorkerOptions().max_active_spans,
          "spans begun and not finished; each takes memory for max_span_tokens");

namespace salamander {
namespace {

absl::StatusOr<prefill::PrefillWorkerOptions> OptionsFromFlags() {
  prefill::PrefillWorkerOptions options;
  ASSIGN_OR_RETURN(static_cast<service::WorkerOptions&>(options), service::WorkerOptionsFromFlags());
  options.max_span_tokens = absl::GetFlag(FLAGS_max_span_tokens);
  options.max_active_spans = absl::GetFlag(FLAGS_max_active_spans);
  return options;
}

int Main(int argc, char** argv) {
  service::BlockStopSignals();
  const absl::Status parsed =
      service::ParseFlags(argc, argv, "salamander-prefill-worker: computes spans of prompts for a Salamander cluster.");
  if (!parsed.ok()) return worker::ExitWith(parsed);
  const absl::StatusOr<double> grace = service::StartProcessFromFlags("prefill-worker");
  if (!grace.ok()) return worker::ExitWith(grace.status());
  absl::StatusOr<prefill::PrefillWorkerOptions> options = OptionsFromFlags();
  if (!options.ok()) return worker::ExitWith(options.status());
  worker::FatalStatus fatal;
  options->on_fatal = [&fatal](const absl::Status& status) { fatal.Set(status); };
  return worker::ServeUntilStopped<prefill::PrefillWorker>(
      [&options] { return prefill::PrefillWorker::Start(*options); }, fatal, *grace);
}

}  // namespace
}  // namespace salamander

int main(int argc, char** argv) { return salamander::Main(argc, argv); }
