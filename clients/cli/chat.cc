#include <unistd.h>

#include <cstdio>
#include <iostream>
#include <memory>
#include <string>

#include "clients/cli/answer.h"
#include "clients/cli/commands.h"
#include "clients/cli/errors.h"
#include "clients/cli/request_flags.h"
#include "clients/cli/router_flags.h"
#include "clients/cpp/client.h"
#include "common/base/status_macros.h"

namespace salamander::cli {
namespace {

// Asks for the user's next message; false at the end of input.
bool ReadMessage(std::string& message) {
  if (isatty(STDIN_FILENO) == 1) std::fputs("> ", stderr);
  return static_cast<bool>(std::getline(std::cin, message));
}

absl::Status Converse(const RouterFlags& router, client::Chat history, const SamplingFlags& sampling) {
  ASSIGN_OR_RETURN(client::Client client, router.Connect());
  std::string message;
  while (ReadMessage(message)) {
    if (message.empty()) continue;
    history.push_back({.role = "user", .content = message});
    client::GenerateRequest request{.prompt = history};
    sampling.Apply(request);
    AnswerPrinter printer(/*json=*/false);
    absl::StatusOr<client::Completion> answer = client.Complete(
        request, {.timeout = sampling.deadline}, [&](const client::Event& event) { printer.Show(event); });
    if (!answer.ok()) {
      printer.Abandon();
      return answer.status();
    }
    history.push_back({.role = "assistant", .content = answer->text});
  }
  return absl::OkStatus();
}

}  // namespace

int RunChat(const Args& args) {
  RouterFlags router;
  std::string system;
  SamplingFlags sampling;
  FlagSet flags("chat", "Talks with the model: one line of stdin is one message; the end of input ends the talk.");
  router.AddTo(flags);
  flags.Add("system", &system, "a system message to begin with");
  sampling.AddTo(flags);
  if (std::optional<int> exit = flags.Parse(args)) return *exit;
  if (absl::Status status = router.Check(); !status.ok()) return flags.UsageError(std::string(status.message()));
  client::Chat history;
  if (!system.empty()) history.push_back({.role = "system", .content = system});
  const absl::Status status = Converse(router, std::move(history), sampling);
  return status.ok() ? 0 : ReportError(status);
}

}  // namespace salamander::cli
