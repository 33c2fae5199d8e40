// One line per event to stderr: time, level, process name, message; as text, or as a JSON object with the fields ts
// (UTC, milliseconds), level, process, msg and, of a message that begins with "request ID:" or "request ID trace ID:",
// request_id and trace_id. Any thread.
//
//   Log(LogLevel::kInfo, absl::StrCat(RequestLabel(id, trace_id), ": ", from, " -> ", to));
#ifndef SALAMANDER_COMMON_BASE_LOG_H_
#define SALAMANDER_COMMON_BASE_LOG_H_

#include <string>
#include <string_view>

namespace salamander {

enum class LogLevel { kDebug, kInfo, kWarning, kError };
enum class LogFormat { kText, kJson };

// `process` is printed in every line. Called once, at start, before other threads log; before that, kInfo and above go
// out as text with no name.
void InitLog(std::string_view process, LogLevel lowest, LogFormat format = LogFormat::kText);

void Log(LogLevel level, std::string_view message);

// The fields of a JSON line that come from the message: `"request_id":"…","trace_id":"…","msg":"…"`. Bytes that are no
// UTF-8 become U+FFFD.
std::string JsonLogFields(std::string_view message);

}  // namespace salamander

#endif  // SALAMANDER_COMMON_BASE_LOG_H_
