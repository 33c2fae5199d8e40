#include "common/service/flags.h"

#include <cmath>
#include <limits>
#include <mutex>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/flags/usage.h"
#include "absl/flags/usage_config.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "absl/synchronization/mutex.h"
#include "common/base/log.h"
#include "common/base/status_macros.h"
#include "common/service/certificate.h"
#include "common/service/grpc_log.h"
#include "common/service/heap.h"
#include "common/service/process.h"

ABSL_FLAG(std::string, listen, salamander::service::ServerOptions().listen, "host:port of gRPC; port 0: a free one");
ABSL_FLAG(std::string, metrics_listen, salamander::service::ServerOptions().metrics_listen,
          "host:port of /metrics; port 0: a free one; empty: none");
ABSL_FLAG(std::string, health_listen, "",
          "host:port of a second listener without TLS, for grpc.health.v1 alone (probes); empty: none");
ABSL_FLAG(std::string, tls_cert, "", "PEM file: this process's certificate and those that lead to a root; TLS is on");
ABSL_FLAG(std::string, tls_key, "", "PEM file: the certificate's private key");
ABSL_FLAG(std::string, tls_ca, "", "PEM file: roots that the certificates of all peers are verified against");
ABSL_FLAG(std::string, tls_client_auth, "require",
          "require: clients need a certificate of --tls_ca (mutual TLS); none: they do not");
ABSL_FLAG(std::string, tls_server_name, "",
          "the name that certificates of the servers dialed must have; default: the host of the address");
ABSL_FLAG(std::string, cluster_token_file, "", "file with the secret that router and workers of a cluster share");
ABSL_FLAG(int32_t, reload_seconds, salamander::service::TlsFiles().reload_seconds,
          "how often the files of certificates and keys are looked at for changes");
ABSL_FLAG(bool, allow_insecure, false, "listen beyond loopback without TLS and without a cluster token");
ABSL_FLAG(std::string, log_level, "info", "debug, info, warning or error");
ABSL_FLAG(std::string, log_format, "text", "text, or json: an object a line");
ABSL_FLAG(bool, die_with_parent, false, "stop when the process that started this one ends");
ABSL_FLAG(double, grace_seconds, 30, "how long a stopping process lets running requests go on");
ABSL_FLAG(std::string, model, "", "checkpoint folder");
ABSL_FLAG(std::string, load_format, salamander::service::WorkerOptions().load_format,
          "safetensors, or dummy: made-up weights for a config.json alone");
ABSL_FLAG(std::string, device, salamander::service::WorkerOptions().device, "cpu, cuda or cuda:N");
ABSL_FLAG(std::vector<std::string>, routers, {},
          "host:port of every router, separated by commas; a name stands for all its addresses, each a router");
ABSL_FLAG(std::string, name, "", "unique in the cluster; default: role and instance");
ABSL_FLAG(std::string, advertise, "", "host:port routers reach this worker at; default: where it listens");
ABSL_FLAG(int32_t, threads, salamander::service::WorkerOptions().threads, "threads that compute");
ABSL_FLAG(int64_t, memory_bytes, 0,
          "memory for weights, requests and transfers; 0: 80% of the machine's, or 90% of what a GPU has free");
ABSL_FLAG(int64_t, transfer_buffer_bytes, salamander::service::WorkerOptions().transfer_buffer_bytes,
          "memory for items being received; senders wait when it is used up");
ABSL_FLAG(double, min_link_bytes_per_second, 0, "links to peers slower than this are refused; 0: none is");
ABSL_FLAG(double, missing_item_seconds, salamander::service::WorkerOptions().missing_item_seconds,
          "an item this late after its span was finished is lost");
ABSL_FLAG(std::string, ucx_transports, "", "UCX_TLS");
ABSL_FLAG(std::string, ucx_net_devices, "", "UCX_NET_DEVICES");
ABSL_FLAG(std::string, capture_dir, "", "folder for what requests received, as REQUEST.safetensors (decode workers)");

namespace salamander::service {
namespace {

constexpr double kMaxSeconds = 86400;
constexpr int64_t kMaxBytes = std::numeric_limits<int64_t>::max();
// One item of the largest model, a 2 MiB state, must fit several times.
constexpr int64_t kMinTransferBufferBytes = 16 << 20;

template <typename T>
absl::Status CheckRange(const std::string& flag, T value, T lowest, T highest) {
  if (value >= lowest && value <= highest) return absl::OkStatus();  // false for NaN
  return absl::InvalidArgumentError(
      absl::StrCat("--", flag, " must be from ", lowest, " to ", highest, ", got ", value));
}

absl::StatusOr<LogLevel> ParseLogLevel(const std::string& text) {
  if (text == "debug") return LogLevel::kDebug;
  if (text == "info") return LogLevel::kInfo;
  if (text == "warning") return LogLevel::kWarning;
  if (text == "error") return LogLevel::kError;
  return absl::InvalidArgumentError(
      absl::StrCat("--log_level must be debug, info, warning or error, got \"", text, "\""));
}

absl::StatusOr<LogFormat> ParseLogFormat(const std::string& text) {
  if (text == "text") return LogFormat::kText;
  if (text == "json") return LogFormat::kJson;
  return absl::InvalidArgumentError(absl::StrCat("--log_format must be text or json, got \"", text, "\""));
}

// Where --help says a flag is from: of the project's own files, the path below this folder of the project's name.
constexpr char kProject[] = "salamander/";

std::string NameInHelp(absl::string_view file) {
  absl::string_view root = __FILE__;
  if (absl::ConsumeSuffix(&root, "common/service/flags.cc") && absl::ConsumePrefix(&file, root)) {
    return absl::StrCat(kProject, file);
  }
  return std::string(file);
}

void SetUsage(const std::string& usage) {
  absl::SetProgramUsageMessage(usage);
  // Without this --help shows only flags of a file named after the program. All files' flags: --helpfull.
  auto of_project = [](absl::string_view name) { return absl::StartsWith(name, kProject); };
  absl::FlagsUsageConfig config;
  config.contains_help_flags = of_project;
  config.contains_helpshort_flags = of_project;
  config.contains_helppackage_flags = of_project;
  config.normalize_filename = NameInHelp;
  absl::SetFlagsUsageConfig(config);
}

absl::StatusOr<Security> SecurityFromFlags() {
  Security security;
  TlsFiles& tls = security.tls;
  tls.cert = absl::GetFlag(FLAGS_tls_cert);
  tls.key = absl::GetFlag(FLAGS_tls_key);
  tls.ca = absl::GetFlag(FLAGS_tls_ca);
  tls.server_name = absl::GetFlag(FLAGS_tls_server_name);
  ASSIGN_OR_RETURN(tls.client_certificates, ParseClientAuth(absl::GetFlag(FLAGS_tls_client_auth)));
  tls.reload_seconds = absl::GetFlag(FLAGS_reload_seconds);
  RETURN_IF_ERROR(CheckFlag("reload_seconds", int64_t{tls.reload_seconds}, int64_t{1}, int64_t{3600}));
  RETURN_IF_ERROR(CheckServerTlsFiles(tls));
  security.allow_insecure = absl::GetFlag(FLAGS_allow_insecure);
  const std::string token_file = absl::GetFlag(FLAGS_cluster_token_file);
  if (token_file.empty()) return security;
  ASSIGN_OR_RETURN(security.cluster_token, ReadClusterToken(token_file));
  return security;
}

}  // namespace

absl::Status CheckFlag(const std::string& flag, int64_t value, int64_t lowest, int64_t highest) {
  return CheckRange(flag, value, lowest, highest);
}

absl::Status CheckFlag(const std::string& flag, double value, double lowest, double highest) {
  return CheckRange(flag, value, lowest, highest);
}

absl::Status ParseFlags(int argc, char** argv, const std::string& usage) {
  static std::once_flag usage_set;  // Abseil takes the message once per process.
  std::call_once(usage_set, SetUsage, usage);
  const std::vector<char*> rest = absl::ParseCommandLine(argc, argv);
  if (rest.size() <= 1) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("unexpected argument \"", rest[1], "\"; flags are --name=value"));
}

absl::StatusOr<double> StartProcessFromFlags(const std::string& process) {
  if (absl::GetFlag(FLAGS_die_with_parent)) DieWithParent();
  ASSIGN_OR_RETURN(const LogLevel level, ParseLogLevel(absl::GetFlag(FLAGS_log_level)));
  ASSIGN_OR_RETURN(const LogFormat format, ParseLogFormat(absl::GetFlag(FLAGS_log_format)));
  InitLog(process, level, format);
  RouteGrpcLogs();
  TrimHeapNowAndThen();
  // Debian's Abseil is a debug build in this: it would keep a graph of the order of gRPC's locks.
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
  const double grace = absl::GetFlag(FLAGS_grace_seconds);
  RETURN_IF_ERROR(CheckFlag("grace_seconds", grace, 0.0, kMaxSeconds));
  return grace;
}

absl::StatusOr<ServerOptions> ServerOptionsFromFlags() {
  ServerOptions options;
  options.listen = absl::GetFlag(FLAGS_listen);
  options.metrics_listen = absl::GetFlag(FLAGS_metrics_listen);
  options.health_listen = absl::GetFlag(FLAGS_health_listen);
  ASSIGN_OR_RETURN(options.security, SecurityFromFlags());
  RETURN_IF_ERROR(CheckExposure("--listen", options.listen, options.security));  // before a model is loaded
  return options;
}

absl::StatusOr<std::string> ModelFromFlags() {
  std::string model = absl::GetFlag(FLAGS_model);
  if (model.empty()) return absl::InvalidArgumentError("--model must name a checkpoint folder");
  return model;
}

std::string LoadFormatFromFlags() { return absl::GetFlag(FLAGS_load_format); }

absl::StatusOr<WorkerOptions> WorkerOptionsFromFlags() {
  WorkerOptions options;
  ASSIGN_OR_RETURN(options.server, ServerOptionsFromFlags());
  ASSIGN_OR_RETURN(options.model, ModelFromFlags());
  options.load_format = LoadFormatFromFlags();
  options.device = absl::GetFlag(FLAGS_device);
  options.routers = absl::GetFlag(FLAGS_routers);
  if (options.routers.empty()) return absl::InvalidArgumentError("--routers must name at least one host:port");
  options.name = absl::GetFlag(FLAGS_name);
  options.advertise = absl::GetFlag(FLAGS_advertise);
  options.threads = absl::GetFlag(FLAGS_threads);
  RETURN_IF_ERROR(CheckFlag("threads", int64_t{options.threads}, int64_t{1}, int64_t{1024}));
  options.memory_bytes = absl::GetFlag(FLAGS_memory_bytes);
  RETURN_IF_ERROR(CheckFlag("memory_bytes", options.memory_bytes, int64_t{0}, kMaxBytes));
  options.transfer_buffer_bytes = absl::GetFlag(FLAGS_transfer_buffer_bytes);
  RETURN_IF_ERROR(
      CheckFlag("transfer_buffer_bytes", options.transfer_buffer_bytes, kMinTransferBufferBytes, kMaxBytes));
  options.min_link_bytes_per_second = absl::GetFlag(FLAGS_min_link_bytes_per_second);
  RETURN_IF_ERROR(CheckFlag("min_link_bytes_per_second", options.min_link_bytes_per_second, 0.0, 1e15));
  options.missing_item_seconds = absl::GetFlag(FLAGS_missing_item_seconds);
  RETURN_IF_ERROR(CheckFlag("missing_item_seconds", options.missing_item_seconds, 0.001, kMaxSeconds));
  options.ucx_transports = absl::GetFlag(FLAGS_ucx_transports);
  options.ucx_net_devices = absl::GetFlag(FLAGS_ucx_net_devices);
  options.capture_dir = absl::GetFlag(FLAGS_capture_dir);
  return options;
}

}  // namespace salamander::service
