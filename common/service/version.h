// Which build this is, for logs, metrics, registration and status.
#ifndef SALAMANDER_COMMON_SERVICE_VERSION_H_
#define SALAMANDER_COMMON_SERVICE_VERSION_H_

#include <string>

namespace salamander::service {

// "0.1.0+0123456789ab": project version and, when CMake configured in a git checkout, that moment's commit.
std::string BuildVersion();

}  // namespace salamander::service

#endif  // SALAMANDER_COMMON_SERVICE_VERSION_H_
