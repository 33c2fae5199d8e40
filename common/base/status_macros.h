// RETURN_IF_ERROR and ASSIGN_OR_RETURN for absl::Status, and a helper that puts words in front of a message.
//
//   RETURN_IF_ERROR(file.Open(path));
//   ASSIGN_OR_RETURN(auto config, ParseConfig(text));
#ifndef SALAMANDER_COMMON_BASE_STATUS_MACROS_H_
#define SALAMANDER_COMMON_BASE_STATUS_MACROS_H_

#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"

namespace salamander {

// The same code with "context: " in front of the message.
inline absl::Status Annotate(const absl::Status& status, std::string_view context) {
  if (status.ok()) return status;
  return absl::Status(status.code(),
                      absl::StrCat(absl::string_view(context.data(), context.size()), ": ", status.message()));
}

}  // namespace salamander

#define SALAMANDER_CONCAT_INNER(a, b) a##b
#define SALAMANDER_CONCAT(a, b) SALAMANDER_CONCAT_INNER(a, b)

#define RETURN_IF_ERROR(expression)                                               \
  do {                                                                            \
    if (absl::Status salamander_status = (expression); !salamander_status.ok()) { \
      return salamander_status;                                                   \
    }                                                                             \
  } while (false)

#define ASSIGN_OR_RETURN(target, expression) \
  SALAMANDER_ASSIGN_OR_RETURN(SALAMANDER_CONCAT(salamander_result_, __LINE__), target, expression)
#define SALAMANDER_ASSIGN_OR_RETURN(result, target, expression) \
  auto result = (expression);                                   \
  if (!result.ok()) return result.status();                     \
  target = std::move(result).value()

#endif  // SALAMANDER_COMMON_BASE_STATUS_MACROS_H_
