// Small files that hold a secret or name who has one.
#ifndef SALAMANDER_COMMON_SERVICE_SECRET_FILE_H_
#define SALAMANDER_COMMON_SERVICE_SECRET_FILE_H_

#include <string>

#include "absl/status/statusor.h"

namespace salamander::service {

// The whole file, at most 16 MiB. An error names the file.
absl::StatusOr<std::string> ReadSmallFile(const std::string& path);
// The same without one newline at its end, as editors and `echo` leave it.
absl::StatusOr<std::string> ReadSecretFile(const std::string& path);

}  // namespace salamander::service

#endif  // SALAMANDER_COMMON_SERVICE_SECRET_FILE_H_
