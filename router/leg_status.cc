#include "router/leg_status.h"

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"

namespace salamander::router {

absl::Status LegError(const std::string& title, const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kDataLoss:
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kFailedPrecondition:
    case absl::StatusCode::kInternal:
    case absl::StatusCode::kUnimplemented:
    case absl::StatusCode::kResourceExhausted:
    case absl::StatusCode::kDeadlineExceeded:
      return Annotate(status, title);
    case absl::StatusCode::kOk:
      return absl::UnavailableError(absl::StrCat(title, " ended its stream before it was done"));
    default:
      return absl::UnavailableError(absl::StrCat(title, " was lost: ", status.message()));
  }
}

bool IsRetryable(const absl::Status& reserve_status) {
  switch (reserve_status.code()) {
    case absl::StatusCode::kResourceExhausted:
    case absl::StatusCode::kUnavailable:
      return true;
    default:
      return false;
  }
}

}  // namespace salamander::router
