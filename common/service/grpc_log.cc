#include "common/service/grpc_log.h"

#include <grpc/support/log.h>

#include "absl/strings/str_cat.h"
#include "common/base/log.h"

namespace salamander::service {

void RouteGrpcLogs() {
  gpr_set_log_function([](gpr_log_func_args* args) {
    const bool error = args->severity == GPR_LOG_SEVERITY_ERROR;
    Log(error ? LogLevel::kWarning : LogLevel::kDebug, absl::StrCat("grpc: ", args->message));
  });
}

}  // namespace salamander::service
