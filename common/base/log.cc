#include "common/base/log.h"

#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <memory>
#include <string>

namespace salamander {
namespace {

spdlog::level::level_enum ToSpdlog(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug:
      return spdlog::level::debug;
    case LogLevel::kInfo:
      return spdlog::level::info;
    case LogLevel::kWarning:
      return spdlog::level::warn;
    case LogLevel::kError:
      break;
  }
  return spdlog::level::err;
}

spdlog::logger& Logger() {
  // Never destroyed: threads may log while the process exits.
  static auto* logger = new spdlog::logger("", std::make_shared<spdlog::sinks::stderr_sink_mt>());
  return *logger;
}

}  // namespace

void InitLog(std::string_view process, LogLevel lowest) {
  Logger().set_level(ToSpdlog(lowest));
  Logger().set_pattern("%Y-%m-%dT%H:%M:%S.%e %L " + std::string(process) + " %v");
}

void Log(LogLevel level, std::string_view message) {
  Logger().log(ToSpdlog(level), spdlog::string_view_t(message.data(), message.size()));
}

}  // namespace salamander
