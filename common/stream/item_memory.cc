#include "common/stream/item_memory.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "absl/strings/str_cat.h"

namespace salamander::stream {
namespace {

template <typename Runs>
int64_t TotalBytes(const Runs& runs) {
  int64_t bytes = 0;
  for (const auto& run : runs) bytes += static_cast<int64_t>(run.size());
  return bytes;
}

// The pieces in which runs of one side go to runs of the other.
std::vector<MemoryCopy> Pieces(absl::Span<const absl::Span<const std::byte>> from,
                               absl::Span<const absl::Span<std::byte>> into) {
  std::vector<MemoryCopy> pieces;
  size_t from_run = 0, from_at = 0;
  for (const absl::Span<std::byte>& to : into) {
    for (size_t at = 0; at < to.size();) {
      if (from_at == from[from_run].size()) {
        ++from_run;
        from_at = 0;
        continue;
      }
      const size_t bytes = std::min(to.size() - at, from[from_run].size() - from_at);
      pieces.push_back({to.data() + at, from[from_run].data() + from_at, static_cast<int64_t>(bytes)});
      at += bytes;
      from_at += bytes;
    }
  }
  return pieces;
}

}  // namespace

void FreeHostBuffer::operator()(std::byte* buffer) const {
  if (memory != nullptr) return memory->FreeHost(buffer, bytes);
  delete[] buffer;
}

HostBuffer NewHostBuffer(ItemMemory* memory, int64_t bytes) {
  std::byte* const buffer = memory != nullptr ? memory->AllocateHost(bytes) : new std::byte[bytes];
  return HostBuffer(buffer, FreeHostBuffer{memory, bytes});
}

absl::Status CopyRuns(absl::Span<const absl::Span<const std::byte>> from, ItemMemory* from_memory,
                      absl::Span<const absl::Span<std::byte>> into, ItemMemory* into_memory) {
  if (TotalBytes(from) != TotalBytes(into)) {
    return absl::DataLossError(absl::StrCat("expected ", TotalBytes(into), " bytes, got ", TotalBytes(from)));
  }
  const std::vector<MemoryCopy> pieces = Pieces(from, into);
  if (from_memory != nullptr && into_memory != nullptr) return into_memory->OnDevice(pieces);
  if (from_memory != nullptr) return from_memory->ToHost(pieces);
  if (into_memory != nullptr) return into_memory->ToDevice(pieces);
  for (const MemoryCopy& piece : pieces) std::memcpy(piece.to, piece.from, piece.bytes);
  return absl::OkStatus();
}

}  // namespace salamander::stream
