// Secrets: made from the operating system's generator, compared without telling by the time taken where they differ.
#ifndef SALAMANDER_COMMON_BASE_SECRET_H_
#define SALAMANDER_COMMON_BASE_SECRET_H_

#include <cstddef>
#include <string>
#include <string_view>

namespace salamander {

// `bytes` random bytes, at most 256. Any thread.
std::string RandomSecret(size_t bytes);

// Whether `given` is `secret`; false if `secret` is empty. The time depends on the lengths alone.
bool IsSecret(std::string_view given, std::string_view secret);

}  // namespace salamander

#endif  // SALAMANDER_COMMON_BASE_SECRET_H_
