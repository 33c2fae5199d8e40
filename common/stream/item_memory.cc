#include "common/stream/item_memory.h"

#include <algorithm>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"

namespace salamander::stream {
namespace {

template <typename Runs>
int64_t TotalBytes(const Runs& runs) {
  int64_t bytes = 0;
  for (const auto& run : runs) bytes += static_cast<int64_t>(run.size());
  return bytes;
}

absl::Status CopyPiece(const std::byte* from, ItemMemory* from_memory, std::byte* into, ItemMemory* into_memory,
                       int64_t bytes) {
  if (from_memory != nullptr && into_memory != nullptr) return into_memory->OnDevice(into, from, bytes);
  if (from_memory != nullptr) return from_memory->ToHost(into, from, bytes);
  if (into_memory != nullptr) return into_memory->ToDevice(into, from, bytes);
  std::memcpy(into, from, bytes);
  return absl::OkStatus();
}

}  // namespace

absl::Status CopyRuns(absl::Span<const absl::Span<const std::byte>> from, ItemMemory* from_memory,
                      absl::Span<const absl::Span<std::byte>> into, ItemMemory* into_memory) {
  if (TotalBytes(from) != TotalBytes(into)) {
    return absl::DataLossError(absl::StrCat("expected ", TotalBytes(into), " bytes, got ", TotalBytes(from)));
  }
  size_t from_run = 0, from_at = 0;
  for (const absl::Span<std::byte>& to : into) {
    for (size_t at = 0; at < to.size();) {
      if (from_at == from[from_run].size()) {
        ++from_run;
        from_at = 0;
        continue;
      }
      const size_t bytes = std::min(to.size() - at, from[from_run].size() - from_at);
      RETURN_IF_ERROR(CopyPiece(from[from_run].data() + from_at, from_memory, to.data() + at, into_memory,
                                static_cast<int64_t>(bytes)));
      at += bytes;
      from_at += bytes;
    }
  }
  return absl::OkStatus();
}

}  // namespace salamander::stream
