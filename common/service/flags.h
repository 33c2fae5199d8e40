// Command line flags that the programs share, as options. Flags not given keep the options' defaults. A main():
//
//   service::BlockStopSignals();
//   absl::Status parsed = service::ParseFlags(argc, argv, "salamander-prefill-worker: computes spans of prompts.");
//   absl::StatusOr<service::WorkerOptions> options = service::WorkerOptionsFromFlags();
#ifndef SALAMANDER_COMMON_SERVICE_FLAGS_H_
#define SALAMANDER_COMMON_SERVICE_FLAGS_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/service/server.h"
#include "common/service/worker_options.h"

namespace salamander::service {

// INVALID_ARGUMENT for arguments that are no flags. An unknown or unreadable flag ends the process, as --help does.
absl::Status ParseFlags(int argc, char** argv, const std::string& usage);

// What every process has besides its server: --die_with_parent (acted on here), --log_level and --log_format (InitLog
// is called with `process`), --grace_seconds (returned; how long a stopping process lets calls run).
absl::StatusOr<double> StartProcessFromFlags(const std::string& process);

// --listen, --metrics_listen, --health_listen; --tls_cert, --tls_key, --tls_ca, --tls_client_auth, --tls_server_name,
// --reload_seconds, --cluster_token_file (read here), --allow_insecure.
absl::StatusOr<ServerOptions> ServerOptionsFromFlags();

// The above and --model, --routers, --name, --advertise, --threads, --memory_bytes, --transfer_buffer_bytes,
// --min_link_bytes_per_second, --missing_item_seconds, --ucx_transports, --ucx_net_devices, --capture_dir.
absl::StatusOr<WorkerOptions> WorkerOptionsFromFlags();

// --model, which all three programs have.
absl::StatusOr<std::string> ModelFromFlags();
std::string LoadFormatFromFlags();

// OK if lowest ≤ value ≤ highest; otherwise INVALID_ARGUMENT naming flag, value and the limit.
absl::Status CheckFlag(const std::string& flag, int64_t value, int64_t lowest, int64_t highest);
absl::Status CheckFlag(const std::string& flag, double value, double lowest, double highest);

}  // namespace salamander::service

#endif  // SALAMANDER_COMMON_SERVICE_FLAGS_H_
