#include "common/base/secret.h"

#include <sys/random.h>

#include <cstdlib>

namespace salamander {

std::string RandomSecret(size_t bytes) {
  std::string secret(bytes, '\0');
  // Cannot fail for so few bytes once seeded, and without it nothing may go on.
  if (getrandom(secret.data(), bytes, 0) != static_cast<ssize_t>(bytes)) std::abort();
  return secret;
}

bool IsSecret(std::string_view given, std::string_view secret) {
  if (secret.empty() || given.size() != secret.size()) return false;
  // Volatile, so that no compiler makes an early return of it.
  volatile unsigned char different = 0;
  for (size_t i = 0; i < secret.size(); ++i) {
    different = different | static_cast<unsigned char>(given[i] ^ secret[i]);
  }
  return different == 0;
}

}  // namespace salamander
