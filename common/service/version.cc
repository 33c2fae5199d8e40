#include "common/service/version.h"

namespace salamander::service {

std::string BuildVersion() { return SALAMANDER_BUILD_VERSION; }

}  // namespace salamander::service
