#include "tests/testing/process_cluster.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <stdlib.h>

#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <system_error>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "common/base/status_macros.h"
#include "tests/common/service/raw_client.h"

namespace salamander::testing {
namespace {

constexpr double kStartSeconds = 30;
constexpr char kAnyPort[] = "127.0.0.1:0";

// "router-0" → "router".
std::string RoleOf(const std::string& name) { return name.substr(0, name.find('-')); }
int IndexOf(const std::string& name) {
  int index = 0;
  return absl::SimpleAtoi(name.substr(name.find('-') + 1), &index) ? index : -1;
}
std::string ProgramOf(const std::string& role) {
  return role == "router" ? "salamander-router" : absl::StrCat("salamander-", role, "-worker");
}

// What follows `key` in "serving grpc=… metrics=…".
std::string ValueOf(const std::string& line, const std::string& key) {
  for (const std::string& word : std::vector<std::string>(absl::StrSplit(line, ' '))) {
    if (absl::StartsWith(word, key)) return word.substr(key.size());
  }
  return "";
}

// The samples of salamander_memory_bytes.
Cluster::Ledger ParseLedger(const std::string& scrape) {
  Cluster::Ledger ledger;
  for (const std::string& line : std::vector<std::string>(absl::StrSplit(scrape, '\n'))) {
    if (!absl::StartsWith(line, "salamander_memory_bytes{")) continue;
    const std::vector<std::string> parts = absl::StrSplit(line, '"');
    double bytes = 0;
    if (parts.size() == 3 && absl::SimpleAtod(absl::StripPrefix(parts[2], "} "), &bytes)) {
      ledger[parts[1]] = static_cast<int64_t>(bytes);
    }
  }
  return ledger;
}

}  // namespace

absl::StatusOr<std::unique_ptr<ProcessCluster>> ProcessCluster::Start(const ClusterOptions& options) {
  std::unique_ptr<ProcessCluster> cluster(new ProcessCluster(options));
  RETURN_IF_ERROR(cluster->StartAll());
  return cluster;
}

ProcessCluster::~ProcessCluster() {
  if (::testing::Test::HasFailure()) {
    for (const auto& [name, process] : processes_) {
      std::fprintf(stderr, "---- end of the log of %s\n%s\n", name.c_str(), process.child->LastWords().c_str());
    }
  }
  processes_.clear();
  std::error_code ignored;  // a folder left in the temporary directory harms no test
  std::filesystem::remove_all(log_dir_, ignored);
}

absl::Status ProcessCluster::StartAll() {
  log_dir_ = absl::StrCat(::testing::TempDir(), "/salamander_cluster_XXXXXX");
  if (mkdtemp(log_dir_.data()) == nullptr) return absl::ErrnoToStatus(errno, "mkdtemp");
  // Processes start side by side; workers need to know the routers' addresses.
  std::vector<std::string> routers, workers;
  for (size_t i = 0; i < options_.routers.size(); ++i) routers.push_back(absl::StrCat("router-", i));
  for (int i = 0; i < options_.prefill_workers; ++i) workers.push_back(absl::StrCat("prefill-", i));
  for (int i = 0; i < options_.decode_workers; ++i) workers.push_back(absl::StrCat("decode-", i));
  for (const auto& names : {routers, workers}) {
    for (const std::string& name : names) RETURN_IF_ERROR(Begin(name, kAnyPort));
    for (const std::string& name : names) RETURN_IF_ERROR(AwaitAddresses(name));
  }
  return WaitReady();
}

absl::Status ProcessCluster::Begin(const std::string& name, const std::string& listen) {
  const std::string role = RoleOf(name);
  std::vector<std::string> arguments =
      role == "router" ? RouterArguments(IndexOf(name), listen) : WorkerArguments(name, options_.model);
  arguments.insert(arguments.end(), options_.flags.begin(), options_.flags.end());
  if (role == "router") arguments.insert(arguments.end(), options_.router_flags.begin(), options_.router_flags.end());
  ASSIGN_OR_RETURN(processes_[name].child,
                   ChildProcess::Start(ProgramOf(role), arguments, absl::StrCat(log_dir_, "/", name, ".log")));
  return absl::OkStatus();
}

absl::Status ProcessCluster::AwaitAddresses(const std::string& name) {
  Process& process = processes_.at(name);
  const absl::StatusOr<std::string> line = process.child->ReadLine(kStartSeconds);
  if (!line.ok()) return Annotate(line.status(), name);
  process.address = ValueOf(*line, "grpc=");
  process.metrics_address = ValueOf(*line, "metrics=");
  process.health_address = ValueOf(*line, "health=");
  if (process.address.empty() || process.metrics_address.empty()) {
    return absl::InternalError(absl::StrCat(name, " printed \"", *line, "\" instead of its addresses"));
  }
  if (RoleOf(name) != "router") return absl::OkStatus();
  const size_t index = static_cast<size_t>(IndexOf(name));
  if (router_addresses_.size() <= index) router_addresses_.resize(index + 1);
  router_addresses_[index] = process.address;
  ConnectRouter(static_cast<int>(index), process.address, options_.security);
  return absl::OkStatus();
}

std::vector<std::string> ProcessCluster::RouterArguments(int router, const std::string& listen) const {
  const RouterVariant& variant = options_.routers.at(router);
  return {absl::StrCat("--model=", options_.model),
          absl::StrCat("--listen=", listen),
          absl::StrCat("--metrics_listen=", kAnyPort),
          absl::StrCat("--span_tokens=", variant.span_tokens),
          absl::StrCat("--codec=", variant.codec == v1::CODEC_RAW ? "raw" : "lossless"),
          absl::StrCat("--queue_limit=", options_.queue_limit),
          absl::StrCat("--max_running=", options_.max_running),
          absl::StrCat("--max_logprobs=", options_.max_logprobs),
          absl::StrCat("--lease_seconds=", options_.lease_seconds),
          absl::StrCat("--heartbeat_seconds=", options_.heartbeat_seconds)};
}

std::vector<std::string> ProcessCluster::WorkerArguments(const std::string& name, const std::string& model) const {
  std::vector<std::string> arguments = {absl::StrCat("--model=", model),
                                        absl::StrCat("--name=", name),
                                        absl::StrCat("--routers=", absl::StrJoin(router_addresses_, ",")),
                                        absl::StrCat("--listen=", kAnyPort),
                                        absl::StrCat("--metrics_listen=", kAnyPort),
                                        "--ucx_net_devices=lo",
                                        "--threads=1",
                                        absl::StrCat("--memory_bytes=", options_.worker_memory_bytes),
                                        absl::StrCat("--missing_item_seconds=", options_.missing_item_seconds)};
  if (RoleOf(name) == "prefill") arguments.push_back(absl::StrCat("--max_span_tokens=", options_.max_span_tokens));
  if (RoleOf(name) == "decode" && !options_.capture_dir.empty()) {
    arguments.push_back(absl::StrCat("--capture_dir=", options_.capture_dir));
  }
  return arguments;
}

std::string ProcessCluster::router_address(int router) const { return router_addresses_.at(router); }

int ProcessCluster::live_workers() const { return static_cast<int>(processes_.size()) - live_routers(); }

int ProcessCluster::live_routers() const {
  int count = 0;
  for (const auto& [name, process] : processes_) count += RoleOf(name) == "router";
  return count;
}

absl::StatusOr<std::map<std::string, Cluster::Ledger>> ProcessCluster::Ledgers() {
  std::map<std::string, Ledger> result;
  for (const auto& [name, process] : processes_) {
    if (RoleOf(name) == "router") continue;
    ASSIGN_OR_RETURN(const std::string scrape, HttpGet(process.metrics_address, "/metrics"));
    result[name] = ParseLedger(scrape);
    if (result[name].empty()) return absl::InternalError(absl::StrCat(name, " shows no memory ledger"));
  }
  return result;
}

void ProcessCluster::Kill(const std::string& name) { processes_.erase(name); }

absl::Status ProcessCluster::Restart(const std::string& name) {
  const bool router = RoleOf(name) == "router";
  RETURN_IF_ERROR(Begin(name, router ? router_addresses_.at(IndexOf(name)) : kAnyPort));
  return AwaitAddresses(name);
}

absl::StatusOr<int> ProcessCluster::Terminate(const std::string& name, double seconds) {
  ChildProcess& child = *processes_.at(name).child;
  child.Signal(SIGTERM);
  ASSIGN_OR_RETURN(const int code, child.WaitForExit(seconds));
  processes_.erase(name);
  return code;
}

absl::StatusOr<std::unique_ptr<ChildProcess>> ProcessCluster::StartStranger(const std::string& role,
                                                                            const std::string& name,
                                                                            const std::string& model,
                                                                            const std::vector<std::string>& flags) {
  std::vector<std::string> arguments = WorkerArguments(name, model);
  for (const auto& more : {options_.flags, flags}) arguments.insert(arguments.end(), more.begin(), more.end());
  return ChildProcess::Start(ProgramOf(role), arguments, absl::StrCat(log_dir_, "/", name, "-stranger.log"));
}

}  // namespace salamander::testing
