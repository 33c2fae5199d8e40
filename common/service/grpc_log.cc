#include "common/service/grpc_log.h"

#include <grpc/support/log.h>

#include <string>

#include "absl/strings/str_cat.h"
#include "common/base/limited_log.h"
#include "common/base/log.h"

namespace salamander::service {

void RouteGrpcLogs() {
  gpr_set_log_function([](gpr_log_func_args* args) {
    // Every failed handshake is one, and anybody may cause those.
    static auto* const errors = new LimitedLog;
    const std::string message = absl::StrCat("grpc: ", args->message);
    if (args->severity == GPR_LOG_SEVERITY_ERROR) {
      errors->Write(LogLevel::kWarning, message);
    } else {
      Log(LogLevel::kDebug, message);
    }
  });
}

}  // namespace salamander::service
