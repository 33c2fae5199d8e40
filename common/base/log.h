// One line per event to stderr: time, level, process name, message. Any thread.
//
//   Log(LogLevel::kInfo, absl::StrCat("request ", IdToString(id), ": ", from, " -> ", to));
#ifndef SALAMANDER_COMMON_BASE_LOG_H_
#define SALAMANDER_COMMON_BASE_LOG_H_

#include <string_view>

namespace salamander {

enum class LogLevel { kDebug, kInfo, kWarning, kError };

// `process` is printed in every line. Called once, at start; before that, kInfo and above go out with no name.
void InitLog(std::string_view process, LogLevel lowest);

void Log(LogLevel level, std::string_view message);

}  // namespace salamander

#endif  // SALAMANDER_COMMON_BASE_LOG_H_
