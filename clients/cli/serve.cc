#include <netdb.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>
#include <string>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "clients/cli/commands.h"
#include "clients/cli/errors.h"
#include "clients/cli/local_cluster.h"
#include "clients/cli/programs.h"
#include "clients/cli/serve_plan.h"
#include "common/base/log.h"
#include "common/base/secret.h"
#include "common/base/status_macros.h"

namespace salamander::cli {
namespace {

// Without a token of the user's, a new one that only this process and its children can read: an open file without a
// name, which they inherit.
absl::StatusOr<std::string> MakeTokenFile() {
  const int fd = memfd_create("cluster_token", 0);
  const std::string token = absl::BytesToHexString(RandomSecret(2 * service::kMinClusterTokenBytes));
  if (fd < 0 || write(fd, token.data(), token.size()) != static_cast<ssize_t>(token.size())) {
    return absl::ErrnoToStatus(errno, "cannot make a cluster token");
  }
  return absl::StrCat("/proc/self/fd/", fd);
}

absl::StatusOr<service::Security> PrepareSecurity(ServeOptions& options) {
  if (options.cluster_token_file.empty()) {
    ASSIGN_OR_RETURN(options.cluster_token_file, MakeTokenFile());
  }
  ASSIGN_OR_RETURN(service::Security security, SecurityOf(options));
  options.tls_server_name = security.tls.server_name;
  return security;
}

// Tries to bind the address for a moment: a clear answer now, before anything starts. INVALID_ARGUMENT if it is none,
// UNAVAILABLE if it is taken.
absl::Status CheckListen(const std::string& address, const service::Security& security) {
  const size_t colon = address.rfind(':');
  if (colon == std::string::npos || colon == 0 || colon + 1 == address.size()) {
    return absl::InvalidArgumentError(absl::StrCat("--listen must be HOST:PORT, got '", address, "'"));
  }
  RETURN_IF_ERROR(service::CheckExposure("--listen", address, security));
  std::string host = address.substr(0, colon);
  if (host.front() == '[' && host.back() == ']') host = host.substr(1, host.size() - 2);
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE | AI_NUMERICSERV;
  addrinfo* found = nullptr;
  if (const int error = getaddrinfo(host.c_str(), address.substr(colon + 1).c_str(), &hints, &found); error != 0) {
    return absl::InvalidArgumentError(absl::StrCat("--listen '", address, "': ", gai_strerror(error)));
  }
  std::unique_ptr<addrinfo, void (*)(addrinfo*)> owned(found, freeaddrinfo);
  const int fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const int on = 1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  const int error = bind(fd, found->ai_addr, found->ai_addrlen) == 0 ? 0 : errno;
  close(fd);
  if (error == 0) return absl::OkStatus();
  return absl::UnavailableError(absl::StrCat("--listen ", address, ": ", std::strerror(error)));
}

}  // namespace

int RunServe(const Args& args) {
  ServeOptions options;
  std::string bin_dir = ProgramFolder();
  bool verbose = false;
  FlagSet flags("serve",
                "Starts a router, prefill workers and decode workers on this machine, prints their addresses and then\n"
                "\"ready HOST:PORT\" once a request would succeed, and serves until Ctrl-C or SIGTERM.");
  flags.Add("model", &options.model, "checkpoint folder: config.json, *.safetensors and tokenizer.model");
  flags.Add("load_format", &options.load_format, "safetensors (default), or dummy: made-up weights");
  flags.Add("device", &options.device,
            "cpu (default), cuda, cuda:N, or GPUs that the workers take in turn: cuda:0,cuda:1");
  flags.Add("prefill_workers", &options.prefill_workers,
            "prefill workers to start (default 2; with several GPUs, all but one; see decode_workers)");
  flags.Add("decode_workers", &options.decode_workers,
            "decode workers to start (default 1); with neither given, one process on one GPU is both");
  flags.Add("listen", &options.listen, "HOST:PORT of the router; port 0: a free one (default 127.0.0.1:7000)");
  flags.Add("metrics_listen", &options.metrics_listen, "HOST:PORT of the router's /metrics (default: a free port)");
  flags.Add("tls_cert", &options.tls_cert, "PEM file of the certificate of all processes: TLS is on");
  flags.Add("tls_key", &options.tls_key, "PEM file of its private key");
  flags.Add("tls_ca", &options.tls_ca, "PEM file of the roots that peers' certificates are verified against");
  flags.Add("tls_client_auth", &options.tls_client_auth, "require clients' certificates (default), or none");
  flags.Add("tls_server_name", &options.tls_server_name, "the processes verify each other by (default: first in it)");
  flags.Add("cluster_token_file", &options.cluster_token_file, "file with the processes' secret (default: a new one)");
  flags.Add("api_keys_file", &options.api_keys_file, "JSON file of the API keys that clients need one of");
  flags.Add("allow_insecure", &options.allow_insecure, "listen beyond loopback without TLS");
  flags.Add("threads", &options.threads, "threads of each worker (default: the cores, divided)");
  flags.Add("memory_bytes", &options.memory_bytes,
            "memory of each worker (default: 80% of the machine's, divided; 90% of what a GPU has free)");
  flags.Add("span_tokens", &options.span_tokens, "longest span of a prompt, a multiple of 128 (default 8192)");
  flags.Add("min_span_tokens", &options.min_span_tokens, "shorter prompts are not cut for more workers to help");
  flags.Add("codec", &options.codec, "of keys and values on the way: raw or lossless (default lossless)");
  flags.Add("max_logprobs", &options.max_logprobs, "most logprobs that a request may ask for (default 20)");
  flags.Add("default_max_tokens", &options.default_max_tokens, "for requests without max_tokens (default 256)");
  flags.Add("max_total_tokens", &options.max_total_tokens, "limit of prompt and max_tokens together");
  flags.Add("queue_limit", &options.queue_limit, "requests that may wait (default 256)");
  flags.Add("max_queue_seconds", &options.max_queue_seconds,
            "requests that would wait longer for their turn are refused (default 0: no limit)");
  flags.Add("max_batch", &options.max_batch, "sequences decoded in one step (default 64)");
  flags.Add("capture_dir", &options.capture_dir, "folder for what decode workers receive, for debugging");
  flags.Add("grace_seconds", &options.grace_seconds, "how long running requests may go on when stopping (default 30)");
  flags.Add("log_level", &options.log_level, "of the programs: debug, info, warning or error (default info)");
  flags.Add("verbose", &verbose, "show the programs' logs on stderr");
  flags.AddHidden("bin_dir", &bin_dir);
  if (std::optional<int> exit = flags.Parse(args)) return *exit;
  if (absl::Status status = CheckServeOptions(options); !status.ok()) {
    return flags.UsageError(std::string(status.message()));
  }
  const absl::StatusOr<service::Security> security = PrepareSecurity(options);
  if (!security.ok()) return flags.UsageError(std::string(security.status().message()));
  if (absl::Status status = CheckListen(options.listen, *security); !status.ok()) {
    return absl::IsInvalidArgument(status) ? flags.UsageError(std::string(status.message())) : ReportError(status);
  }
  InitLog("serve", verbose ? LogLevel::kInfo : LogLevel::kWarning);
  const absl::Status status = LocalCluster(options, *security, bin_dir, verbose).Run();
  return status.ok() ? 0 : ReportError(status);
}

}  // namespace salamander::cli
