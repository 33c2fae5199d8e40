// How commands report failures.
#ifndef SALAMANDER_CLIENTS_CLI_ERRORS_H_
#define SALAMANDER_CLIENTS_CLI_ERRORS_H_

#include <string>

#include "absl/status/status.h"

namespace salamander::cli {

// "error: CODE: message" on stderr. Returns kExitFailure.
int ReportError(const absl::Status& status);

}  // namespace salamander::cli

#endif  // SALAMANDER_CLIENTS_CLI_ERRORS_H_
