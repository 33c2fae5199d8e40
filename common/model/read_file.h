// A whole small file.
#ifndef SALAMANDER_COMMON_MODEL_READ_FILE_H_
#define SALAMANDER_COMMON_MODEL_READ_FILE_H_

#include <string>

#include "absl/status/statusor.h"

namespace salamander::model {

// NOT_FOUND if there is none, INVALID_ARGUMENT if it cannot be read.
absl::StatusOr<std::string> ReadFile(const std::string& path);

}  // namespace salamander::model

#endif  // SALAMANDER_COMMON_MODEL_READ_FILE_H_
