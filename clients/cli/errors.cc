#include "clients/cli/errors.h"

#include <cstdio>

#include "clients/cli/flags.h"

namespace salamander::cli {

int ReportError(const absl::Status& status) {
  std::fprintf(stderr, "error: %s: %s\n", absl::StatusCodeToString(status.code()).c_str(),
               std::string(status.message()).c_str());
  return kExitFailure;
}

}  // namespace salamander::cli
