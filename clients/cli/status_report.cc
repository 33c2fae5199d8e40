#include "clients/cli/status_report.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "clients/cli/json.h"
#include "clients/cli/progress_bar.h"
#include "common/base/ids.h"

namespace salamander::cli {
namespace {

using Json = nlohmann::ordered_json;
using Row = std::vector<std::string>;

// Columns as wide as their widest cell; the first row is the heading.
std::string Table(const std::vector<Row>& rows) {
  std::vector<size_t> widths(rows[0].size(), 0);
  for (const Row& row : rows) {
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  std::string table;
  for (const Row& row : rows) {
    std::string line;
    for (size_t i = 0; i < row.size(); ++i) absl::StrAppendFormat(&line, "%-*s  ", widths[i], row[i]);
    line.erase(line.find_last_not_of(' ') + 1);
    absl::StrAppend(&table, "  ", line, "\n");
  }
  return table;
}

// Owners in order of size, largest first; those with nothing are left out.
std::string MemoryByOwner(const client::WorkerStatus& worker) {
  std::vector<std::pair<int64_t, std::string>> owners;
  for (const auto& [owner, bytes] : worker.memory_by_owner) {
    if (bytes > 0) owners.emplace_back(bytes, owner);
  }
  std::sort(owners.rbegin(), owners.rend());
  return absl::StrJoin(owners, ", ", [](std::string* out, const auto& entry) {
    absl::StrAppend(out, entry.second, " ", HumanBytes(static_cast<double>(entry.first)));
  });
}

std::string WorkersTable(const client::ClusterStatus& status) {
  std::vector<Row> rows = {
      {"WORKER", "ROLE", "READY", "REQUESTS", "QUEUED TOKENS", "TOKENS/S", "ADDRESS", "VERSION", "LAST BEAT"}};
  for (const client::WorkerStatus& worker : status.workers) {
    rows.push_back({worker.name, client::WorkerRoleName(worker.role), worker.ready ? "yes" : "no",
                    absl::StrCat(worker.active_requests), WithThousands(worker.queued_tokens),
                    worker.tokens_per_second > 0 ? WithThousands(static_cast<int64_t>(worker.tokens_per_second)) : "-",
                    worker.address, worker.version, absl::StrFormat("%.1f s ago", worker.seconds_since_heartbeat)});
  }
  return Table(rows);
}

std::string MemoryTable(const client::ClusterStatus& status) {
  std::vector<Row> rows = {{"MEMORY OF", "CAPACITY", "FREE", "HELD BY"}};
  for (const client::WorkerStatus& worker : status.workers) {
    rows.push_back({worker.name, HumanBytes(static_cast<double>(worker.memory_capacity_bytes)),
                    HumanBytes(static_cast<double>(worker.memory_free_bytes)), MemoryByOwner(worker)});
  }
  return Table(rows);
}

std::string LinksTable(const client::ClusterStatus& status) {
  std::vector<Row> rows = {{"LINK FROM", "TO", "STATE", "MEASURED", "TRANSPORT"}};
  for (const client::WorkerStatus& worker : status.workers) {
    for (const client::LinkStatus& link : worker.links) {
      rows.push_back(
          {worker.name, link.peer, link.connected ? "connected" : absl::StrCat("not connected: ", link.error),
           link.bytes_per_second > 0 ? absl::StrCat(HumanBytes(link.bytes_per_second), "/s") : "-", link.transport});
    }
  }
  return rows.size() == 1 ? "" : absl::StrCat("\n", Table(rows));
}

Json WorkerToJson(const client::WorkerStatus& worker) {
  Json links = Json::array();
  for (const client::LinkStatus& link : worker.links) {
    links.push_back({{"peer", link.peer},
                     {"connected", link.connected},
                     {"bytes_per_s", link.bytes_per_second},
                     {"transport", link.transport},
                     {"error", link.error}});
  }
  return {{"name", worker.name},
          {"role", client::WorkerRoleName(worker.role)},
          {"instance", IdToString(worker.instance_id)},
          {"address", worker.address},
          {"version", worker.version},
          {"transport", worker.transport},
          {"ready", worker.ready},
          {"running_requests", worker.running_requests},
          {"active_requests", worker.active_requests},
          {"queued_tokens", worker.queued_tokens},
          {"tokens_per_s", worker.tokens_per_second},
          {"memory",
           {{"capacity_bytes", worker.memory_capacity_bytes},
            {"free_bytes", worker.memory_free_bytes},
            {"owners", worker.memory_by_owner}}},
          {"links", links},
          {"seconds_since_heartbeat", worker.seconds_since_heartbeat}};
}

}  // namespace

std::string HumanBytes(double bytes) {
  const char* const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  size_t unit = 0;
  for (; bytes >= 1024 && unit + 1 < std::size(units); ++unit) bytes /= 1024;
  return absl::StrFormat(unit == 0 ? "%.0f %s" : "%.1f %s", bytes, units[unit]);
}

std::string StatusTable(const client::ClusterStatus& status) {
  std::string out = absl::StrCat("model ", status.model.name, " (", status.model.fingerprint, "), at most ",
                                 WithThousands(status.model.max_total_tokens), " tokens a request\n");
  absl::StrAppend(&out, "router ", status.router_version, ": ", status.ready ? "ready" : "not ready", ", ",
                  status.running_requests, " running, ", status.queued_requests, " of ", status.queue_limit,
                  " queued\n\n");
  if (status.workers.empty()) return out + "no workers\n";
  absl::StrAppend(&out, WorkersTable(status), "\n", MemoryTable(status), LinksTable(status));
  return out;
}

std::string StatusToJson(const client::ClusterStatus& status) {
  Json workers = Json::array();
  for (const client::WorkerStatus& worker : status.workers) workers.push_back(WorkerToJson(worker));
  const Json object = {{"ready", status.ready},
                       {"router_version", status.router_version},
                       {"queued_requests", status.queued_requests},
                       {"running_requests", status.running_requests},
                       {"queue_limit", status.queue_limit},
                       {"router_cpu_seconds", status.router_cpu_seconds},
                       {"model",
                        {{"name", status.model.name},
                         {"fingerprint", status.model.fingerprint},
                         {"vocab_size", status.model.vocab_size},
                         {"max_total_tokens", status.model.max_total_tokens},
                         {"eos_token_ids", status.model.eos_token_ids},
                         {"max_logprobs", status.model.max_logprobs},
                         {"default_max_tokens", status.model.default_max_tokens}}},
                       {"workers", workers}};
  return DumpJson(object, 2);
}

}  // namespace salamander::cli
