#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "clients/cli/answer.h"
#include "clients/cli/commands.h"
#include "clients/cli/errors.h"
#include "clients/cli/interrupt.h"
#include "clients/cli/local_model.h"
#include "clients/cli/request_flags.h"
#include "common/base/status_macros.h"

namespace salamander::cli {
namespace {

absl::Status Generate(const LocalModelOptions& options, const client::GenerateRequest& request, absl::Duration deadline,
                      const Interrupt& interrupt, AnswerPrinter& printer) {
  ASSIGN_OR_RETURN(std::unique_ptr<LocalModel> model, LocalModel::Load(options));
  // Loading is no part of the request.
  const absl::Time end = absl::Now() + deadline;
  auto go_on = [&]() -> absl::Status {
    if (interrupt.signal() != 0) return absl::CancelledError("interrupted");
    if (absl::Now() < end) return absl::OkStatus();
    return absl::DeadlineExceededError(absl::StrCat("not done after ", absl::FormatDuration(deadline)));
  };
  return model->Generate(request, go_on, [&](const client::Event& event) { printer.Show(event); });
}

}  // namespace

int RunLocal(const Args& args) {
  LocalModelOptions options;
  RequestFlags request_flags;
  FlagSet flags("run", "Generates in this one process, without a cluster; takes and prints what generate does.");
  options.model.AddTo(flags);
  flags.Add("span_tokens", &options.span_tokens, "prompt tokens computed at once, a multiple of 128 (default 8192)");
  request_flags.AddTo(flags);
  if (std::optional<int> exit = flags.Parse(args)) return *exit;
  if (options.model.model.empty()) return flags.UsageError("--model must be given");
  absl::StatusOr<client::GenerateRequest> request = request_flags.Read();
  if (!request.ok()) return flags.UsageError(std::string(request.status().message()));

  Interrupt interrupt;
  AnswerPrinter printer(request_flags.json);
  const absl::Status status = Generate(options, *request, request_flags.sampling.deadline, interrupt, printer);
  if (status.ok()) return 0;
  printer.Abandon();
  if (interrupt.signal() != 0) return interrupt.exit_code();
  return ReportError(status);
}

}  // namespace salamander::cli
