#include "clients/cli/serve_plan.h"

#include <unistd.h>

#include <algorithm>
#include <thread>

#include "absl/strings/str_cat.h"

namespace salamander::cli {
namespace {

constexpr int32_t kMaxWorkers = 64;

template <typename T>
void AddIfGiven(std::vector<std::string>& args, const char* name, const std::optional<T>& value) {
  if (value) args.push_back(absl::StrCat("--", name, "=", *value));
}

absl::Status CheckCount(const char* name, int32_t value) {
  if (value >= 1 && value <= kMaxWorkers) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("--", name, " must be in [1, ", kMaxWorkers, "], got ", value));
}

ChildPlan PlanWorker(const ServeOptions& options, const std::string& router, const std::string& role, int32_t index,
                     int64_t threads, int64_t memory_bytes) {
  ChildPlan plan{.name = absl::StrCat(role, "-", index), .program = absl::StrCat("salamander-", role, "-worker")};
  plan.args = {absl::StrCat("--model=", options.model),
               absl::StrCat("--routers=", router),
               absl::StrCat("--name=", plan.name),
               "--listen=127.0.0.1:0",
               "--metrics_listen=127.0.0.1:0",
               "--ucx_net_devices=lo",
               absl::StrCat("--threads=", threads),
               absl::StrCat("--memory_bytes=", memory_bytes),
               absl::StrCat("--grace_seconds=", options.grace_seconds)};
  AddIfGiven(plan.args, "log_level", options.log_level);
  return plan;
}

}  // namespace

absl::Status CheckServeOptions(const ServeOptions& options) {
  if (options.model.empty()) return absl::InvalidArgumentError("--model must be given");
  if (absl::Status status = CheckCount("prefill_workers", options.prefill_workers); !status.ok()) return status;
  if (absl::Status status = CheckCount("decode_workers", options.decode_workers); !status.ok()) return status;
  if (options.grace_seconds < 0) {
    return absl::InvalidArgumentError(absl::StrCat("--grace_seconds must be >= 0, got ", options.grace_seconds));
  }
  return absl::OkStatus();
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
  plan.args = {absl::StrCat("--model=", options.model), absl::StrCat("--listen=", options.listen),
               absl::StrCat("--metrics_listen=", options.metrics_listen),
               absl::StrCat("--grace_seconds=", options.grace_seconds)};
  AddIfGiven(plan.args, "span_tokens", options.span_tokens);
  AddIfGiven(plan.args, "min_span_tokens", options.min_span_tokens);
  AddIfGiven(plan.args, "codec", options.codec);
  AddIfGiven(plan.args, "max_logprobs", options.max_logprobs);
  AddIfGiven(plan.args, "default_max_tokens", options.default_max_tokens);
  AddIfGiven(plan.args, "max_total_tokens", options.max_total_tokens);
  AddIfGiven(plan.args, "queue_limit", options.queue_limit);
  AddIfGiven(plan.args, "log_level", options.log_level);
  return plan;
}

std::vector<ChildPlan> PlanWorkers(const ServeOptions& options, const Machine& machine, const std::string& router) {
  const ThreadPlan threads = PlanThreads(machine.cores, options.prefill_workers, options.decode_workers);
  const int64_t memory =
      options.memory_bytes.value_or(PlanMemory(machine.memory_bytes, options.prefill_workers + options.decode_workers));
  std::vector<ChildPlan> plans;
  for (int32_t i = 0; i < options.prefill_workers; ++i) {
    plans.push_back(PlanWorker(options, router, "prefill", i, options.threads.value_or(threads.prefill), memory));
    AddIfGiven(plans.back().args, "max_span_tokens", options.span_tokens);
  }
  for (int32_t i = 0; i < options.decode_workers; ++i) {
    plans.push_back(PlanWorker(options, router, "decode", i, options.threads.value_or(threads.decode), memory));
    AddIfGiven(plans.back().args, "max_batch", options.max_batch);
    AddIfGiven(plans.back().args, "capture_dir", options.capture_dir);
  }
  return plans;
}

}  // namespace salamander::cli
