// salamander-router: takes clients' requests and runs them on the workers that register with it.
#include <cstdio>
#include <string>

#include "absl/flags/declare.h"
#include "absl/flags/flag.h"
#include "common/base/status_macros.h"
#include "common/service/flags.h"
#include "common/service/process.h"
#include "router/router.h"

using salamander::router::RouterOptions;

ABSL_DECLARE_FLAG(int32_t, threads);
ABSL_FLAG(int64_t, span_tokens, RouterOptions().span_tokens, "longest span of a prompt; a multiple of 128");
ABSL_FLAG(int64_t, min_span_tokens, RouterOptions().min_span_tokens,
          "shorter prompts are not cut for more workers to help below this");
ABSL_FLAG(int64_t, queue_limit, RouterOptions().queue_limit, "requests that may wait");
ABSL_FLAG(
    double, max_queue_seconds, RouterOptions().max_queue_seconds,
    "requests that would wait longer for their turn, by the prompt tokens ahead of them and the measured rate, are "
    "refused, and so are those that did wait so long; 0: no limit");
ABSL_FLAG(int64_t, max_running, RouterOptions().max_running, "requests that run at once");
ABSL_FLAG(int32_t, max_logprobs, RouterOptions().max_logprobs, "largest number of log-probabilities a client may ask");
ABSL_FLAG(int64_t, default_max_tokens, RouterOptions().default_max_tokens, "max_tokens of requests that give none");
ABSL_FLAG(int64_t, max_total_tokens, RouterOptions().max_total_tokens,
          "limit of prompt + max_tokens; 0: the larger of the model's max_position_embeddings and 4M");
ABSL_FLAG(std::string, api_keys_file, "",
          "JSON file of the API keys that clients need one of, with their limits; empty: they need none");
ABSL_FLAG(std::string, codec, "lossless", "of items between workers: raw or lossless");
ABSL_FLAG(double, heartbeat_seconds, RouterOptions().heartbeat_seconds, "workers that miss two beats are gone");
ABSL_FLAG(double, max_request_seconds, RouterOptions().max_request_seconds,
          "a request may take no longer than this, whatever its deadline; 0: no limit");
ABSL_FLAG(double, lease_seconds, RouterOptions().lease_seconds, "workers release a reservation nobody claims by then");

namespace salamander::router {
namespace {

absl::StatusOr<v1::Codec> CodecFromFlag() {
  const std::string codec = absl::GetFlag(FLAGS_codec);
  if (codec == "raw") return v1::CODEC_RAW;
  if (codec == "lossless") return v1::CODEC_LOSSLESS;
  return absl::InvalidArgumentError(absl::StrCat("--codec must be raw or lossless, got \"", codec, "\""));
}

absl::StatusOr<RouterOptions> OptionsFromFlags() {
  RouterOptions options;
  ASSIGN_OR_RETURN(options.server, service::ServerOptionsFromFlags());
  ASSIGN_OR_RETURN(options.model, service::ModelFromFlags());
  options.load_format = service::LoadFormatFromFlags();
  ASSIGN_OR_RETURN(options.codec, CodecFromFlag());
  options.api_keys_file = absl::GetFlag(FLAGS_api_keys_file);
  options.span_tokens = absl::GetFlag(FLAGS_span_tokens);
  options.min_span_tokens = absl::GetFlag(FLAGS_min_span_tokens);
  options.queue_limit = absl::GetFlag(FLAGS_queue_limit);
  options.max_queue_seconds = absl::GetFlag(FLAGS_max_queue_seconds);
  options.max_running = absl::GetFlag(FLAGS_max_running);
  options.max_logprobs = absl::GetFlag(FLAGS_max_logprobs);
  options.default_max_tokens = absl::GetFlag(FLAGS_default_max_tokens);
  options.max_total_tokens = absl::GetFlag(FLAGS_max_total_tokens);
  options.heartbeat_seconds = absl::GetFlag(FLAGS_heartbeat_seconds);
  options.lease_seconds = absl::GetFlag(FLAGS_lease_seconds);
  options.max_request_seconds = absl::GetFlag(FLAGS_max_request_seconds);
  options.threads = absl::GetFlag(FLAGS_threads);
  return options;
}

absl::Status Run(int argc, char** argv) {
  service::BlockStopSignals();
  absl::SetFlag(&FLAGS_threads, RouterOptions().threads);  // The flag is the workers' too, with another default.
  RETURN_IF_ERROR(service::ParseFlags(argc, argv, "salamander-router: runs clients' requests on registered workers."));
  ASSIGN_OR_RETURN(const double grace_seconds, service::StartProcessFromFlags("router"));
  ASSIGN_OR_RETURN(const RouterOptions options, OptionsFromFlags());
  ASSIGN_OR_RETURN(const auto router, Router::Start(options));
  service::PrintAddresses(router->address(), router->metrics_address(), router->health_address());
  service::WaitForStopSignal();
  router->Drain(grace_seconds);
  return absl::OkStatus();
}

}  // namespace
}  // namespace salamander::router

int main(int argc, char** argv) {
  const absl::Status status = salamander::router::Run(argc, argv);
  if (!status.ok()) std::fprintf(stderr, "salamander-router: %s\n", status.ToString().c_str());
  return status.ok() ? 0 : 1;
}
