#include "common/transport/ucx_address.h"

#include <xxhash.h>

#include <cstdint>
#include <cstring>

#include "absl/strings/str_cat.h"

namespace salamander::transport {
namespace {

// The digit is the version of this framing and of UCX's address format: peers of another are refused, not misread.
constexpr std::string_view kMagic = "salaucx1";
constexpr size_t kHashBytes = sizeof(uint64_t);

}  // namespace

std::string PackUcxAddress(std::string_view worker_address) {
  const uint64_t hash = XXH3_64bits(worker_address.data(), worker_address.size());
  std::string packed(kMagic);
  packed.append(reinterpret_cast<const char*>(&hash), kHashBytes);
  packed.append(worker_address);
  return packed;
}

absl::StatusOr<std::string> UnpackUcxAddress(std::string_view address) {
  if (address.size() <= kMagic.size() + kHashBytes || address.substr(0, kMagic.size()) != kMagic) {
    return absl::InvalidArgumentError(absl::StrCat("not the address of a UCX transport (", address.size(), " bytes)"));
  }
  uint64_t hash;
  std::memcpy(&hash, address.data() + kMagic.size(), kHashBytes);
  const std::string_view worker_address = address.substr(kMagic.size() + kHashBytes);
  if (hash != XXH3_64bits(worker_address.data(), worker_address.size())) {
    return absl::InvalidArgumentError("damaged address of a UCX transport: its hash does not match");
  }
  return std::string(worker_address);
}

}  // namespace salamander::transport
