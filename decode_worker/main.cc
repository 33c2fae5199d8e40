// salamander-decode-worker: the decode worker as a process.
#include "absl/flags/flag.h"
#include "common/base/status_macros.h"
#include "common/service/flags.h"
#include "common/worker/process.h"
#include "decode_worker/decode_worker.h"

ABSL_FLAG(int64_t, max_batch, salamander::decode::DecodeWorkerOptions().max_batch,
          "sequences decoded in one step; others wait");

namespace salamander {
namespace {

absl::StatusOr<decode::DecodeWorkerOptions> OptionsFromFlags() {
  decode::DecodeWorkerOptions options;
  ASSIGN_OR_RETURN(static_cast<service::WorkerOptions&>(options), service::WorkerOptionsFromFlags());
  options.max_batch = absl::GetFlag(FLAGS_max_batch);
  return options;
}

int Main(int argc, char** argv) {
  service::BlockStopSignals();
  const absl::Status parsed =
      service::ParseFlags(argc, argv, "salamander-decode-worker: generates tokens for a Salamander cluster.");
  if (!parsed.ok()) return worker::ExitWith(parsed);
  const absl::StatusOr<double> grace = service::StartProcessFromFlags("decode-worker");
  if (!grace.ok()) return worker::ExitWith(grace.status());
  absl::StatusOr<decode::DecodeWorkerOptions> options = OptionsFromFlags();
  if (!options.ok()) return worker::ExitWith(options.status());
  worker::FatalStatus fatal;
  options->on_fatal = [&fatal](const absl::Status& status) { fatal.Set(status); };
  return worker::ServeUntilStopped<decode::DecodeWorker>([&options] { return decode::DecodeWorker::Start(*options); },
                                                         fatal, *grace);
}

}  // namespace
}  // namespace salamander

int main(int argc, char** argv) { return salamander::Main(argc, argv); }
