#include <cstdio>
#include <memory>
#include <string>

#include "clients/cli/answer.h"
#include "clients/cli/commands.h"
#include "clients/cli/errors.h"
#include "clients/cli/interrupt.h"
#include "clients/cli/request_flags.h"
#include "clients/cli/router_flags.h"
#include "clients/cpp/client.h"
#include "common/base/status_macros.h"

namespace salamander::cli {
namespace {

absl::Status Stream(const RouterFlags& router, const client::GenerateRequest& request,
                    const client::CallOptions& options, Interrupt& interrupt, AnswerPrinter& printer) {
  ASSIGN_OR_RETURN(client::Client client, router.Connect());
  std::unique_ptr<client::GenerateCall> call = client.Generate(request, options);
  interrupt.OnSignal([&call] { call->Cancel(); });
  absl::StatusOr<client::Event> event;
  do {
    event = call->Next();
    if (event.ok()) printer.Show(*event);
  } while (event.ok() && !std::holds_alternative<client::Finished>(*event));
  interrupt.OnSignal(nullptr);
  return event.status();
}

}  // namespace

int RunGenerate(const Args& args) {
  RouterFlags router;
  RequestFlags request_flags;
  FlagSet flags("generate", "Sends a prompt to a router and streams the answer to stdout.");
  router.AddTo(flags);
  request_flags.AddTo(flags);
  if (std::optional<int> exit = flags.Parse(args)) return *exit;
  if (absl::Status status = router.Check(); !status.ok()) return flags.UsageError(std::string(status.message()));
  absl::StatusOr<client::GenerateRequest> request = request_flags.Read();
  if (!request.ok()) return flags.UsageError(std::string(request.status().message()));

  Interrupt interrupt;
  AnswerPrinter printer(request_flags.json);
  const absl::Status status =
      Stream(router, *request, {.timeout = request_flags.sampling.deadline}, interrupt, printer);
  if (status.ok()) return 0;
  printer.Abandon();
  if (interrupt.signal() != 0) return interrupt.exit_code();
  return ReportError(status);
}

}  // namespace salamander::cli
