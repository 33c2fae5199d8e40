#include <cstdio>
#include <string>

#include "clients/cli/commands.h"
#include "clients/cli/errors.h"
#include "clients/cli/router_flags.h"
#include "clients/cli/status_report.h"
#include "clients/cpp/client.h"
#include "common/base/status_macros.h"

namespace salamander::cli {
namespace {

// A router that holds the connection and says nothing is as good as none.
constexpr absl::Duration kPatience = absl::Seconds(10);

absl::StatusOr<client::ClusterStatus> GetStatus(const RouterFlags& router) {
  ASSIGN_OR_RETURN(client::Client client, router.Connect());
  return client.GetStatus({.timeout = kPatience});
}

}  // namespace

int RunStatus(const Args& args) {
  RouterFlags router;
  bool json = false;
  FlagSet flags("status", "Shows a cluster's workers, load, memory and links, as one router sees them.");
  router.AddTo(flags);
  flags.Add("json", &json, "print one JSON object");
  if (std::optional<int> exit = flags.Parse(args)) return *exit;
  if (absl::Status status = router.Check(); !status.ok()) return flags.UsageError(std::string(status.message()));

  absl::StatusOr<client::ClusterStatus> status = GetStatus(router);
  if (!status.ok()) return ReportError(status.status());
  std::printf("%s", json ? (StatusToJson(*status) + "\n").c_str() : StatusTable(*status).c_str());
  return 0;
}

}  // namespace salamander::cli
