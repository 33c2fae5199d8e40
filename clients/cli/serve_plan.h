// What `serve` starts: which programs, with which flags.
#ifndef SALAMANDER_CLIENTS_CLI_SERVE_PLAN_H_
#define SALAMANDER_CLIENTS_CLI_SERVE_PLAN_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/service/security.h"

namespace salamander::cli {

struct ServeOptions {
  std::string model;
  std::string load_format = "safetensors";
  // One device, or a list with commas that the workers take in turn, prefill workers first.
  std::string device = "cpu";
  // Not given: one process with both roles on a GPU, two prefill workers and a decode worker on a CPU.
  std::optional<int32_t> prefill_workers;
  std::optional<int32_t> decode_workers;
  std::string listen = "127.0.0.1:7000";
  std::string metrics_listen = "127.0.0.1:0";
  double grace_seconds = 30;
  // Of each worker; not given: this machine's share (see PlanThreads and PlanMemory).
  std::optional<int32_t> threads;
  std::optional<int64_t> memory_bytes;
  // Passed on when given; otherwise the programs' own defaults hold.
  std::optional<int64_t> span_tokens;
  std::optional<int64_t> min_span_tokens;
  std::optional<std::string> codec;
  std::optional<int32_t> max_logprobs;
  std::optional<int64_t> default_max_tokens;
  std::optional<int64_t> max_total_tokens;
  std::optional<int64_t> queue_limit;
  std::optional<double> max_queue_seconds;
  std::optional<int64_t> max_batch;
  std::optional<std::string> capture_dir;
  std::optional<std::string> log_level;
  std::optional<std::string> api_keys_file;
  // Of the router and the workers alike. Without a name of their own, all of them are dialed by the certificate's
  // first.
  std::string tls_cert, tls_key, tls_ca, tls_client_auth = "require", tls_server_name;
  std::string cluster_token_file;
  bool allow_insecure = false;
};

// How this process, the router and the workers dial each other: as MemberSecurity, with a name to verify. An error
// names the file.
absl::StatusOr<service::Security> SecurityOf(const ServeOptions& options);

struct WorkerCounts {
  int32_t prefill = 0;
  int32_t decode = 0;
  bool one_process = false;  // both roles in one: they share the device and the weights
};
WorkerCounts PlanCounts(const ServeOptions& options);

// INVALID_ARGUMENT naming the flag.
absl::Status CheckServeOptions(const ServeOptions& options);

struct Machine {
  int64_t cores = 1;
  int64_t memory_bytes = 0;
};
Machine ThisMachine();

// Threads per worker: decode workers, bound by memory rate, share a quarter of the cores, prefill workers the rest; at
// least one each.
struct ThreadPlan {
  int64_t prefill = 1;
  int64_t decode = 1;
};
ThreadPlan PlanThreads(int64_t cores, int64_t prefill_workers, int64_t decode_workers);
// Ledger of each worker: 80% of the machine's memory, divided by the workers.
int64_t PlanMemory(int64_t machine_bytes, int64_t workers);

struct ChildPlan {
  std::string name;
  std::string program;  // file name, beside the command's own
  std::vector<std::string> args;
};
ChildPlan PlanRouter(const ServeOptions& options);
// Where this machine reaches an address that one of its processes listens on.
std::string OverLoopback(const std::string& address);
// Prefill workers first. `router` is the address the router serves on, reached over loopback.
std::vector<ChildPlan> PlanWorkers(const ServeOptions& options, const Machine& machine, const std::string& router);

}  // namespace salamander::cli

#endif  // SALAMANDER_CLIENTS_CLI_SERVE_PLAN_H_
