// `salamander bench serve`: an open-loop load on a running cluster, and what became of it.
#include <cstdio>
#include <cstring>
#include <fstream>
#include <memory>
#include <optional>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "clients/cli/commands.h"
#include "clients/cli/errors.h"
#include "clients/cli/interrupt.h"
#include "clients/cli/json.h"
#include "clients/cli/load/arrivals.h"
#include "clients/cli/load/load_report.h"
#include "clients/cli/load/load_run.h"
#include "clients/cli/router_flags.h"
#include "common/base/status_macros.h"
#include "common/service/address.h"

namespace salamander::cli {
namespace {

using Json = nlohmann::ordered_json;

struct BenchServeFlags {
  RouterFlags router;
  PoissonOptions poisson{.rate = 1, .seconds = 60, .most = 10000, .input = {100, 100000}, .output = {16, 256}};
  std::string trace;
  double trace_speed = 1;
  absl::Duration duration = absl::Seconds(60);
  LoadOptions load;
  int32_t connections = 8;
  ServiceLevels levels;
  bool allow_remote = false;
  std::string output;
  bool json = false;

  void AddTo(FlagSet& flags) {
    router.AddTo(flags);
    flags.Add("rate", &poisson.rate, "arrivals a second, at random times that know nothing of each other (default 1)");
    flags.Add("duration", &duration, "no arrivals after this time (default 60)");
    flags.Add("max_requests", &poisson.most, "arrivals at most (default 10000)");
    flags.Add("input_min", &poisson.input.least, "shortest prompt in tokens (default 100)");
    flags.Add("input_max", &poisson.input.most, "longest prompt; each octave between is as likely (default 100000)");
    flags.Add("output_min", &poisson.output.least, "fewest tokens asked for (default 16)");
    flags.Add("output_max", &poisson.output.most, "most tokens asked for (default 256)");
    flags.Add(
        "trace", &trace,
        "replay this file instead: lines {\"timestamp\": ms, \"input_length\": tokens, \"output_length\": tokens}");
    flags.Add("trace_speed", &trace_speed, "2 replays twice as fast (default 1)");
    flags.Add("seed", &poisson.seed, "of arrivals, lengths and prompts (default 0)");
    flags.Add("connections", &connections, "connections to the router, used in turn (default 8)");
    flags.Add("deadline", &load.deadline, "of each request (default: none)");
    flags.Add("drain", &load.drain, "after the last arrival, what still runs by then is cancelled (default 60)");
    flags.Add("max_outstanding", &load.most_outstanding, "more under way: arrivals are dropped (default 4096)");
    flags.Add("slo_ttft", &levels.ttft, "a good request's time to first token, in seconds (default 10)");
    flags.Add("slo_itl", &levels.itl, "a good request's mean time between tokens, in seconds (default 0.2)");
    flags.Add("allow_remote", &allow_remote, "load a router that is not on this machine");
    flags.Add("output", &output, "write the report, with every request, to this file as JSON");
    flags.Add("json", &json, "print the report as one JSON object, without the requests");
  }

  absl::Status Check() const {
    const auto need = [](bool good, const char* what, auto value) {
      return good ? absl::OkStatus() : absl::InvalidArgumentError(absl::StrCat(what, ", got ", value));
    };
    RETURN_IF_ERROR(router.Check());
    RETURN_IF_ERROR(need(allow_remote || service::IsLoopback(service::HostOf(router.target)),
                         "--target must be on this machine unless --allow_remote is given", router.target));
    RETURN_IF_ERROR(
        need(poisson.rate > 0 && poisson.rate <= 1e6, "--rate must be above 0 and at most 1e6", poisson.rate));
    RETURN_IF_ERROR(need(trace_speed > 0, "--trace_speed must be above 0", trace_speed));
    RETURN_IF_ERROR(
        need(duration <= absl::Hours(24), "--duration must be at most 24h", absl::FormatDuration(duration)));
    RETURN_IF_ERROR(
        need(poisson.most >= 1 && poisson.most <= 1000000, "--max_requests must be 1 to 1000000", poisson.most));
    RETURN_IF_ERROR(need(poisson.input.least >= 1, "--input_min must be at least 1", poisson.input.least));
    RETURN_IF_ERROR(need(poisson.input.most >= poisson.input.least, "--input_max must be at least --input_min",
                         poisson.input.most));
    RETURN_IF_ERROR(need(poisson.output.least >= 1, "--output_min must be at least 1", poisson.output.least));
    RETURN_IF_ERROR(need(poisson.output.most >= poisson.output.least, "--output_max must be at least --output_min",
                         poisson.output.most));
    RETURN_IF_ERROR(need(connections >= 1 && connections <= 1000, "--connections must be 1 to 1000", connections));
    return need(load.most_outstanding >= 1, "--max_outstanding must be at least 1", load.most_outstanding);
  }

  absl::StatusOr<std::vector<Arrival>> Arrivals() const {
    const double seconds = absl::ToDoubleSeconds(duration);
    if (trace.empty()) {
      PoissonOptions options = poisson;
      options.seconds = seconds;
      return PoissonArrivals(options);
    }
    std::ifstream file(trace, std::ios::binary);
    std::ostringstream text;
    text << file.rdbuf();
    if (!file) return absl::InvalidArgumentError(absl::StrCat("cannot read '", trace, "': ", std::strerror(errno)));
    auto arrivals = ParseTrace(text.str(), {.speed = trace_speed, .seconds = seconds, .most = poisson.most});
    if (!arrivals.ok()) return Annotate(arrivals.status(), trace);
    return arrivals;
  }

  Json Workload() const {
    Json workload = {
        {"duration_s", absl::ToDoubleSeconds(duration)}, {"connections", connections}, {"seed", poisson.seed}};
    if (trace.empty()) {
      workload["rate_per_s"] = poisson.rate;
      workload["input_tokens"] = {poisson.input.least, poisson.input.most};
      workload["output_tokens"] = {poisson.output.least, poisson.output.most};
    } else {
      workload["trace"] = trace;
      workload["trace_speed"] = trace_speed;
    }
    return workload;
  }
};

absl::StatusOr<Json> Load(const BenchServeFlags& flags, const std::vector<Arrival>& arrivals, Interrupt& interrupt) {
  std::vector<client::Client> clients;
  for (int i = 0; i < flags.connections; ++i) {
    ASSIGN_OR_RETURN(client::Client client, flags.router.Connect({.own_connection = true}));
    clients.push_back(std::move(client));
  }
  ASSIGN_OR_RETURN(const client::ClusterStatus before, clients[0].GetStatus());
  LoadOptions options = flags.load;
  options.vocab_size = before.model.vocab_size;
  options.seed = flags.poisson.seed;
  LoadRun run(&clients, options);
  interrupt.OnSignal([&run] { run.Stop(); });
  const LoadResult result = run.Run(arrivals);
  interrupt.OnSignal(nullptr);
  Json router = {{"target", flags.router.target}, {"version", before.router_version}, {"model", before.model.name}};
  if (const auto after = clients[0].GetStatus(); after.ok()) {
    router["cpu_s"] = after->router_cpu_seconds - before.router_cpu_seconds;
    router["cpu_source"] = "GetStatus.router_cpu_seconds, before and after";
  } else {
    router["cpu_error"] = after.status().ToString();
  }
  return LoadReport(result, flags.levels, flags.Workload(), std::move(router));
}

absl::Status Write(const std::string& path, const Json& report) {
  std::ofstream file(path);
  file << DumpJson(report) << "\n";
  file.close();
  return file ? absl::OkStatus()
              : absl::UnavailableError(absl::StrCat("cannot write '", path, "': ", std::strerror(errno)));
}

}  // namespace

int RunBenchServe(const Args& args) {
  BenchServeFlags values;
  FlagSet flags("bench serve",
                "Sends requests of random tokens to a router at times that do not depend on its answers, and reports "
                "what a client sees. Ends after --duration and --drain at the latest.");
  values.AddTo(flags);
  if (std::optional<int> exit = flags.Parse(args)) return *exit;
  if (absl::Status good = values.Check(); !good.ok()) return flags.UsageError(std::string(good.message()));
  const absl::StatusOr<std::vector<Arrival>> arrivals = values.Arrivals();
  if (!arrivals.ok()) return flags.UsageError(std::string(arrivals.status().message()));

  Interrupt interrupt;
  absl::StatusOr<Json> report = Load(values, *arrivals, interrupt);
  if (!report.ok()) return ReportError(report.status());
  if (!values.output.empty()) {
    if (absl::Status written = Write(values.output, *report); !written.ok()) return ReportError(written);
  }
  report->erase("samples");
  std::fputs(values.json ? (DumpJson(*report) + "\n").c_str() : LoadSummary(*report).c_str(), stdout);
  return interrupt.signal() != 0 ? interrupt.exit_code() : 0;
}

}  // namespace salamander::cli
