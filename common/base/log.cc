#include "common/base/log.h"

#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <memory>
#include <nlohmann/json.hpp>

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

bool json_lines = false;

std::string Quoted(std::string_view text) {
  return nlohmann::json(text).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

}  // namespace

void InitLog(std::string_view process, LogLevel lowest, LogFormat format) {
  json_lines = format == LogFormat::kJson;
  Logger().set_level(ToSpdlog(lowest));
  if (json_lines) {
    Logger().set_pattern(R"({"ts":"%Y-%m-%dT%H:%M:%S.%eZ","level":"%l","process":)" + Quoted(process) + ",%v}",
                         spdlog::pattern_time_type::utc);
  } else {
    Logger().set_pattern("%Y-%m-%dT%H:%M:%S.%e %L " + std::string(process) + " %v");
  }
}

std::string JsonLogFields(std::string_view message) {
  constexpr std::string_view kRequest = "request ", kTrace = " trace ";
  const auto is_id = [](std::string_view id) {
    return !id.empty() && id.find_first_not_of("0123456789abcdef") == std::string_view::npos;
  };
  std::string fields;
  const size_t colon = message.find(':');
  if (message.starts_with(kRequest) && colon != std::string_view::npos) {
    const std::string_view ids = message.substr(kRequest.size(), colon - kRequest.size());
    const size_t trace = ids.find(kTrace);
    const std::string_view request_id = ids.substr(0, trace);
    const std::string_view trace_id = trace == std::string_view::npos ? "" : ids.substr(trace + kTrace.size());
    if (is_id(request_id)) fields += "\"request_id\":" + Quoted(request_id) + ",";
    if (is_id(request_id) && is_id(trace_id)) fields += "\"trace_id\":" + Quoted(trace_id) + ",";
  }
  return fields + "\"msg\":" + Quoted(message);
}

void Log(LogLevel level, std::string_view message) {
  if (!Logger().should_log(ToSpdlog(level))) return;
  const std::string line = json_lines ? JsonLogFields(message) : std::string(message);
  Logger().log(ToSpdlog(level), spdlog::string_view_t(line.data(), line.size()));
}

}  // namespace salamander
