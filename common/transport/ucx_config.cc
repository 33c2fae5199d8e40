#include "common/transport/ucx_config.h"

#include <ucs/config/global_opts.h>
#include <ucs/debug/debug.h>

#include <csignal>
#include <cstdlib>
#include <mutex>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"

namespace salamander::transport {
namespace {

struct Setting {
  const char* name;
  const char* value;
  const char* environment;  // the operator's word on it, without UCX_
};

// What we set where the environment does not.
constexpr Setting kDefaults[] = {
    // How soon the death of a peer whose kernel does not tell (shared memory, a lost machine) is noticed.
    {"KEEPALIVE_INTERVAL", "1s", "KEEPALIVE_INTERVAL"},
    // On one machine a receiver reads straight from the sender's memory (cma), four times as fast as TCP. UCX leaves
    // that out where peers may die, because a sender that gave up may have reused the memory; our checksums see that.
    {"MEMORY_INVALIDATE", "y", "CMA_MEMORY_INVALIDATE"},
    // Receivers read, senders never write: a late or stale sender cannot touch memory that its receiver has reused.
    // Where reading is not possible (TCP), data comes in messages that the receiver copies.
    {"RNDV_SCHEME", "get_zcopy", "RNDV_SCHEME"},
};

const char* Environment(const std::string& name) { return std::getenv(absl::StrCat("UCX_", name).c_str()); }

// Settings of the whole process. The environment wins, but for the signals: UCX would print and re-raise on faults,
// which hides them from sanitizers and core dumps' readers.
void PrepareProcess() {
  static std::once_flag once;
  std::call_once(once, [] {
    for (int signal : {SIGILL, SIGSEGV, SIGBUS, SIGFPE}) ucs_debug_disable_signal(signal);
    // A peer's death is our event to log, once, with its name; UCX would log it for every operation.
    if (Environment("LOG_LEVEL") == nullptr) ucs_global_opts_set_value("LOG_LEVEL", "fatal");
    if (Environment("WARN_UNUSED_ENV_VARS") == nullptr) ucs_global_opts_set_value("WARN_UNUSED_ENV_VARS", "n");
  });
}

absl::Status Modify(ucp_config_t* config, const std::string& name, const std::string& value) {
  const ucs_status_t status = ucp_config_modify(config, name.c_str(), value.c_str());
  if (status == UCS_OK) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("UCX_", name, "=", value, ": ", ucs_status_string(status)));
}

absl::Status Configure(ucp_config_t* config, const UcxOptions& options) {
  if (!options.transports.empty()) RETURN_IF_ERROR(Modify(config, "TLS", options.transports));
  if (!options.net_devices.empty()) RETURN_IF_ERROR(Modify(config, "NET_DEVICES", options.net_devices));
  for (const Setting& setting : kDefaults) {
    if (Environment(setting.environment) != nullptr) continue;
    RETURN_IF_ERROR(Modify(config, setting.name, setting.value));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status UcxError(std::string_view what, ucs_status_t status) {
  const std::string message = absl::StrCat(std::string(what), ": ", ucs_status_string(status));
  switch (status) {
    case UCS_ERR_UNREACHABLE:
    case UCS_ERR_CONNECTION_RESET:
    case UCS_ERR_ENDPOINT_TIMEOUT:
    case UCS_ERR_NOT_CONNECTED:
    case UCS_ERR_REJECTED:
    case UCS_ERR_TIMED_OUT:
    case UCS_ERR_IO_ERROR:
    case UCS_ERR_CANCELED:
      return absl::UnavailableError(message);
    default:
      return absl::InternalError(message);
  }
}

absl::StatusOr<UcxContext> CreateUcxContext(const UcxOptions& options) {
  PrepareProcess();
  ucp_config_t* config = nullptr;
  if (ucs_status_t status = ucp_config_read(nullptr, nullptr, &config); status != UCS_OK) {
    return UcxError("reading UCX's configuration", status);
  }
  const std::unique_ptr<ucp_config_t, decltype(&ucp_config_release)> release(config, &ucp_config_release);
  RETURN_IF_ERROR(Configure(config, options));
  ucp_params_t params{};
  params.field_mask = UCP_PARAM_FIELD_FEATURES | UCP_PARAM_FIELD_NAME;
  params.features = UCP_FEATURE_AM | UCP_FEATURE_WAKEUP;
  params.name = "salamander";
  ucp_context_h context = nullptr;
  if (ucs_status_t status = ucp_init(&params, config, &context); status != UCS_OK) {
    return UcxError(absl::StrCat("starting ", DescribeUcx(options)), status);
  }
  return UcxContext(context);
}

std::string DescribeUcx(const UcxOptions& options) {
  const auto chosen = [](const std::string& option, const std::string& name) {
    const char* environment = Environment(name);
    return !option.empty() ? option : environment != nullptr ? environment : "all";
  };
  return absl::StrCat("ucx ", ucp_get_version_string(), ", transports ", chosen(options.transports, "TLS"),
                      ", devices ", chosen(options.net_devices, "NET_DEVICES"));
}

}  // namespace salamander::transport
