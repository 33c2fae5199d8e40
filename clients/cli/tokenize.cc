#include <cstdio>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "clients/cli/commands.h"
#include "clients/cli/errors.h"
#include "clients/cli/json.h"
#include "clients/cli/request_flags.h"
#include "clients/cli/router_flags.h"
#include "clients/cpp/client.h"
#include "common/base/status_macros.h"

namespace salamander::cli {
namespace {

absl::StatusOr<std::vector<int32_t>> Tokenize(const RouterFlags& router, const client::Prompt& prompt) {
  ASSIGN_OR_RETURN(client::Client client, router.Connect());
  return client.Tokenize(prompt);
}

}  // namespace

int RunTokenize(const Args& args) {
  RouterFlags router;
  PromptFlags prompt_flags;
  FlagSet flags("tokenize", "Prints the token ids that generate would run for a prompt, as a JSON array.");
  router.AddTo(flags);
  prompt_flags.AddTo(flags);
  if (std::optional<int> exit = flags.Parse(args)) return *exit;
  if (absl::Status status = router.Check(); !status.ok()) return flags.UsageError(std::string(status.message()));
  absl::StatusOr<client::Prompt> prompt = prompt_flags.Read();
  if (!prompt.ok()) return flags.UsageError(std::string(prompt.status().message()));

  absl::StatusOr<std::vector<int32_t>> ids = Tokenize(router, *prompt);
  if (!ids.ok()) return ReportError(ids.status());
  std::printf("%s\n", DumpJson(nlohmann::ordered_json(*ids)).c_str());
  return 0;
}

}  // namespace salamander::cli
