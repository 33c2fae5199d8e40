#include "common/base/ids.h"

#include <sys/random.h>

#include <cstdlib>

#include "absl/strings/str_cat.h"

namespace salamander {

uint64_t RandomId() {
  uint64_t id = 0;
  while (id == 0) {
    if (getrandom(&id, sizeof(id), 0) != sizeof(id)) std::abort();  // Cannot fail for 8 bytes once seeded.
  }
  return id;
}

std::string IdToString(uint64_t id) { return absl::StrCat(absl::Hex(id, absl::kZeroPad16)); }

std::string RequestLabel(RequestId request, const std::string& trace_id) {
  return absl::StrCat("request ", IdToString(request), trace_id.empty() ? "" : " trace ", trace_id);
}

}  // namespace salamander
