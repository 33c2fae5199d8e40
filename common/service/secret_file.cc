#include "common/service/secret_file.h"

#include <cerrno>
#include <cstdio>
#include <memory>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "common/base/status_macros.h"

namespace salamander::service {
namespace {

constexpr size_t kMaxBytes = 16 << 20;

}  // namespace

absl::StatusOr<std::string> ReadSmallFile(const std::string& path) {
  std::unique_ptr<FILE, int (*)(FILE*)> file(std::fopen(path.c_str(), "rb"), std::fclose);
  if (file == nullptr) return absl::ErrnoToStatus(errno, absl::StrCat("cannot read ", path));
  std::string content(4096, '\0');
  size_t size = 0;
  while (const size_t count = std::fread(content.data() + size, 1, content.size() - size, file.get())) {
    size += count;
    if (size > kMaxBytes) {
      return absl::InvalidArgumentError(absl::StrCat(path, " must have at most ", kMaxBytes, " bytes"));
    }
    if (size == content.size()) content.resize(2 * size);
  }
  if (std::ferror(file.get()) != 0) return absl::ErrnoToStatus(errno, absl::StrCat("cannot read ", path));
  content.resize(size);
  return content;
}

absl::StatusOr<std::string> ReadSecretFile(const std::string& path) {
  ASSIGN_OR_RETURN(const std::string content, ReadSmallFile(path));
  return std::string(absl::StripSuffix(absl::StripSuffix(content, "\n"), "\r"));
}

}  // namespace salamander::service
