#include "clients/cli/serve_plan.h"

#include <unistd.h>

#include <algorithm>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/base/status_macros.h"
#include "common/model/checkpoint.h"
#include "common/service/address.h"
#include "common/service/certificate.h"
#include "kernels/device.h"

namespace salamander::cli {
namespace {

constexpr int32_t kMaxWorkers = 64;

template <typename T>
void AddIfGiven(std::vector<std::string>& args, const char* name, const std::optional<T>& value) {
  if (value) args.push_back(absl::StrCat("--", name, "=", *value));
}

void AddSecurity(std::vector<std::string>& args, const ServeOptions& options) {
  const std::pair<const char*, const std::string&> flags[] = {
      {"tls_cert", options.tls_cert},
      {"tls_key", options.tls_key},
      {"tls_ca", options.tls_ca},
      {"tls_client_auth", options.tls_client_auth},
      {"tls_server_name", options.tls_server_name},
      {"cluster_token_file", options.cluster_token_file},
  };
  for (const auto& [name, value] : flags) {
    if (!value.empty()) args.push_back(absl::StrCat("--", name, "=", value));
  }
  if (options.allow_insecure) args.push_back("--allow_insecure");
}

absl::Status CheckCount(const char* name, int32_t value) {
  if (value >= 1 && value <= kMaxWorkers) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("--", name, " must be in [1, ", kMaxWorkers, "], got ", value));
}

absl::Status Flag(const char* name, const absl::Status& status) {
  return absl::InvalidArgumentError(absl::StrCat("--", name, ": ", status.message()));
}

std::vector<std::string> Devices(const ServeOptions& options) { return absl::StrSplit(options.device, ','); }

bool OnCpu(const ServeOptions& options) { return Devices(options).front() == "cpu"; }

absl::Status CheckDevices(const ServeOptions& options) {
  const std::vector<std::string> devices = Devices(options);
  for (const std::string& device : devices) {
    const auto spec = kernels::ParseDevice(device);
    if (!spec.ok()) return Flag("device", spec.status());
    if (spec->cuda == OnCpu(options)) {
      return absl::InvalidArgumentError(absl::StrCat("--device must be of one kind, got \"", options.device, "\""));
    }
  }
  const WorkerCounts counts = PlanCounts(options);
  const size_t workers = counts.one_process ? 1 : counts.prefill + counts.decode;
  if (devices.size() <= workers) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("--device must name at most as many devices as there are workers, ",
                                                 workers, ", got ", devices.size()));
}

ChildPlan PlanWorker(const ServeOptions& options, const std::string& device, const std::string& router,
                     std::string name, std::string program, int64_t threads, std::optional<int64_t> memory_bytes) {
  ChildPlan plan{.name = std::move(name), .program = std::move(program)};
  plan.args = {absl::StrCat("--model=", options.model),
               absl::StrCat("--routers=", OverLoopback(router)),
               absl::StrCat("--name=", plan.name),
               "--listen=127.0.0.1:0",
               "--metrics_listen=127.0.0.1:0",
               "--ucx_net_devices=lo",
               absl::StrCat("--threads=", threads),
               absl::StrCat("--device=", device),
               absl::StrCat("--load_format=", options.load_format),
               absl::StrCat("--grace_seconds=", options.grace_seconds)};
  AddIfGiven(plan.args, "memory_bytes", memory_bytes);
  AddIfGiven(plan.args, "log_level", options.log_level);
  AddSecurity(plan.args, options);
  return plan;
}

}  // namespace

std::string OverLoopback(const std::string& address) {
  const std::string port = service::PortOf(address), host = service::HostOf(address);
  if (host == "0.0.0.0") return absl::StrCat("127.0.0.1:", port);
  if (host == "::") return absl::StrCat("[::1]:", port);
  return address;
}

absl::Status CheckServeOptions(const ServeOptions& options) {
  if (options.model.empty()) return absl::InvalidArgumentError("--model must be given");
  const WorkerCounts counts = PlanCounts(options);
  if (absl::Status status = CheckCount("prefill_workers", counts.prefill); !status.ok()) return status;
  if (absl::Status status = CheckCount("decode_workers", counts.decode); !status.ok()) return status;
  if (absl::Status status = CheckDevices(options); !status.ok()) return status;
  if (auto format = model::ParseLoadFormat(options.load_format); !format.ok())
    return Flag("load_format", format.status());
  if (options.grace_seconds < 0) {
    return absl::InvalidArgumentError(absl::StrCat("--grace_seconds must be >= 0, got ", options.grace_seconds));
  }
  return absl::OkStatus();
}

absl::StatusOr<service::Security> SecurityOf(const ServeOptions& options) {
  service::Security security{.tls = {.cert = options.tls_cert, .key = options.tls_key, .ca = options.tls_ca},
                             .allow_insecure = options.allow_insecure};
  ASSIGN_OR_RETURN(security.tls.client_certificates, service::ParseClientAuth(options.tls_client_auth));
  RETURN_IF_ERROR(service::CheckServerTlsFiles(security.tls));
  security.tls.server_name = options.tls_server_name;
  if (!options.tls_cert.empty() && options.tls_server_name.empty()) {
    ASSIGN_OR_RETURN(const service::CertificateInfo certificate, service::ReadCertificate(options.tls_cert));
    if (!certificate.names.empty()) security.tls.server_name = certificate.names[0];
  }
  if (options.cluster_token_file.empty()) return security;
  ASSIGN_OR_RETURN(security.cluster_token, service::ReadClusterToken(options.cluster_token_file));
  return security;
}

Machine ThisMachine() {
  return {.cores = std::max<int64_t>(std::thread::hardware_concurrency(), 1),
          .memory_bytes = static_cast<int64_t>(sysconf(_SC_PHYS_PAGES)) * sysconf(_SC_PAGESIZE)};
}

ThreadPlan PlanThreads(int64_t cores, int64_t prefill_workers, int64_t decode_workers) {
  const int64_t decode = std::max<int64_t>(cores / 4 / decode_workers, 1);
  const int64_t rest = cores - decode * decode_workers;
  return {.prefill = std::max<int64_t>(rest / prefill_workers, 1), .decode = decode};
}

int64_t PlanMemory(int64_t machine_bytes, int64_t workers) { return machine_bytes / 10 * 8 / workers; }

ChildPlan PlanRouter(const ServeOptions& options) {
  ChildPlan plan{.name = "router", .program = "salamander-router"};
  plan.args = {absl::StrCat("--model=", options.model), absl::StrCat("--load_format=", options.load_format),
               absl::StrCat("--listen=", options.listen), absl::StrCat("--metrics_listen=", options.metrics_listen),
               absl::StrCat("--grace_seconds=", options.grace_seconds)};
  AddIfGiven(plan.args, "span_tokens", options.span_tokens);
  AddIfGiven(plan.args, "min_span_tokens", options.min_span_tokens);
  AddIfGiven(plan.args, "codec", options.codec);
  AddIfGiven(plan.args, "max_logprobs", options.max_logprobs);
  AddIfGiven(plan.args, "default_max_tokens", options.default_max_tokens);
  AddIfGiven(plan.args, "max_total_tokens", options.max_total_tokens);
  AddIfGiven(plan.args, "queue_limit", options.queue_limit);
  AddIfGiven(plan.args, "max_queue_seconds", options.max_queue_seconds);
  AddIfGiven(plan.args, "api_keys_file", options.api_keys_file);
  AddIfGiven(plan.args, "log_level", options.log_level);
  AddSecurity(plan.args, options);
  return plan;
}

WorkerCounts PlanCounts(const ServeOptions& options) {
  const bool one_process =
      !OnCpu(options) && Devices(options).size() == 1 && !options.prefill_workers && !options.decode_workers;
  if (one_process) return {.prefill = 1, .decode = 1, .one_process = true};
  // Of several GPUs the last one decodes.
  const auto of_devices = static_cast<int32_t>(std::max<size_t>(Devices(options).size(), 2) - 1);
  return {.prefill = options.prefill_workers.value_or(OnCpu(options) ? 2 : of_devices),
          .decode = options.decode_workers.value_or(1)};
}

std::vector<ChildPlan> PlanWorkers(const ServeOptions& options, const Machine& machine, const std::string& router) {
  const WorkerCounts counts = PlanCounts(options);
  const ThreadPlan threads = PlanThreads(machine.cores, counts.prefill, counts.decode);
  std::optional<int64_t> memory = options.memory_bytes;
  // A worker on a GPU looks for itself what is free.
  if (!memory && OnCpu(options)) memory = PlanMemory(machine.memory_bytes, counts.prefill + counts.decode);
  const std::vector<std::string> devices = Devices(options);
  std::vector<ChildPlan> plans;
  auto add = [&](const std::string& name, const std::string& program, int64_t of_threads) -> std::vector<std::string>& {
    const std::string& device = devices[plans.size() % devices.size()];
    plans.push_back(PlanWorker(options, device, router, name, program, options.threads.value_or(of_threads), memory));
    return plans.back().args;
  };
  auto add_prefill_flags = [&](std::vector<std::string>& args) {
    AddIfGiven(args, "max_span_tokens", options.span_tokens);
  };
  auto add_decode_flags = [&](std::vector<std::string>& args) {
    AddIfGiven(args, "max_batch", options.max_batch);
    AddIfGiven(args, "capture_dir", options.capture_dir);
  };
  if (counts.one_process) {
    std::vector<std::string>& args = add("worker-0", "salamander-worker", threads.prefill);
    add_prefill_flags(args);
    add_decode_flags(args);
    return plans;
  }
  for (int32_t i = 0; i < counts.prefill; ++i) {
    add_prefill_flags(add(absl::StrCat("prefill-", i), "salamander-prefill-worker", threads.prefill));
  }
  for (int32_t i = 0; i < counts.decode; ++i) {
    add_decode_flags(add(absl::StrCat("decode-", i), "salamander-decode-worker", threads.decode));
  }
  return plans;
}

}  // namespace salamander::cli
