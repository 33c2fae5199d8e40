// The format: 8 bytes little-endian length of the header, the header (a JSON object from tensor name to dtype, shape
// and [begin, end) of its bytes), then the bytes, whose offsets count from the header's end.
// https://github.com/huggingface/safetensors#format
#include "common/model/safetensors.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <limits>
#include <optional>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/model/json_fields.h"
#include "nlohmann/json.hpp"

namespace salamander::model {
namespace {

using nlohmann::json;

constexpr size_t kLengthBytes = 8;
constexpr uint64_t kMaxHeaderBytes = 100'000'000;  // the format's own limit

struct TypeInfo {
  TensorType type;
  const char* name;
  int64_t bytes;
};
constexpr TypeInfo kTypes[] = {
    {TensorType::kF32, "F32", 4}, {TensorType::kBF16, "BF16", 2}, {TensorType::kI32, "I32", 4}};

const TypeInfo& InfoOf(TensorType type) {
  return *std::find_if(std::begin(kTypes), std::end(kTypes), [&](const TypeInfo& info) { return info.type == type; });
}

std::string Quote(const std::string& name) { return Show(json(name)); }

absl::Status Fault(const std::string& tensor, const std::string& what) {
  return absl::InvalidArgumentError(absl::StrCat("tensor ", Quote(tensor), ": ", what));
}

std::optional<uint64_t> Unsigned(const json& value) {
  if (!value.is_number_unsigned()) return std::nullopt;
  return value.get<uint64_t>();
}

// Sizes of all dimensions, and the bytes of a tensor of them; nothing if the product does not fit 63 bits.
std::optional<int64_t> BytesOf(const std::vector<int64_t>& shape, int64_t element_bytes) {
  int64_t bytes = element_bytes;
  for (const int64_t size : shape) {
    if (__builtin_mul_overflow(bytes, size, &bytes)) return std::nullopt;
  }
  return bytes;
}

absl::StatusOr<std::vector<int64_t>> ParseShape(const std::string& name, const json& entry) {
  const auto shape = entry.find("shape");
  if (shape == entry.end() || !shape->is_array()) return Fault(name, "expected a list \"shape\"");
  std::vector<int64_t> sizes;
  for (const json& size : *shape) {
    const std::optional<uint64_t> value = Unsigned(size);
    if (!value.has_value() || *value > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
      return Fault(name, absl::StrCat("expected whole numbers in \"shape\", found ", Show(size)));
    }
    sizes.push_back(static_cast<int64_t>(*value));
  }
  return sizes;
}

absl::StatusOr<TypeInfo> ParseType(const std::string& name, const json& entry) {
  const auto dtype = entry.find("dtype");
  for (const TypeInfo& info : kTypes) {
    if (dtype != entry.end() && *dtype == info.name) return info;
  }
  return Fault(name, absl::StrCat("expected \"dtype\" BF16, F32 or I32, found ",
                                  dtype == entry.end() ? "no such key" : Show(*dtype)));
}

// One entry of the header, whose bytes lie somewhere in `data`.
absl::StatusOr<TensorView> ParseTensor(const std::string& name, const json& entry, const std::byte* data,
                                       uint64_t data_bytes) {
  if (!entry.is_object()) return Fault(name, absl::StrCat("expected an object, found ", Show(entry)));
  ASSIGN_OR_RETURN(const TypeInfo type, ParseType(name, entry));
  TensorView view{.type = type.type};
  ASSIGN_OR_RETURN(view.shape, ParseShape(name, entry));

  const auto offsets = entry.find("data_offsets");
  if (offsets == entry.end() || !offsets->is_array() || offsets->size() != 2) {
    return Fault(name, "expected \"data_offsets\" of two numbers");
  }
  const std::optional<uint64_t> begin = Unsigned((*offsets)[0]), end = Unsigned((*offsets)[1]);
  if (!begin.has_value() || !end.has_value() || *begin > *end || *end > data_bytes) {
    return Fault(name, absl::StrCat("expected \"data_offsets\" within the file's ", data_bytes,
                                    " bytes of data, found ", Show(*offsets)));
  }
  const std::optional<int64_t> bytes = BytesOf(view.shape, type.bytes);
  if (!bytes.has_value() || static_cast<uint64_t>(*bytes) != *end - *begin) {
    return Fault(name, absl::StrCat("expected ", bytes.has_value() ? absl::StrCat(*bytes) : "more than 2^63",
                                    " bytes for ", type.name, " ", Show(entry["shape"]), ", found ", *end - *begin));
  }
  view.data = data + *begin;
  view.bytes = *bytes;
  if (view.bytes > 0 && reinterpret_cast<uintptr_t>(view.data) % type.bytes != 0) {
    return Fault(name, absl::StrCat("its bytes begin at ", *begin, " of the data, which no ", type.name, " can"));
  }
  return view;
}

// The tensors must fill the data without overlap or hole.
absl::Status CheckCover(const std::map<std::string, TensorView>& tensors, const std::byte* data, uint64_t data_bytes) {
  std::vector<std::tuple<uint64_t, uint64_t, const std::string*>> ranges;
  for (const auto& [name, view] : tensors) {
    const auto begin = static_cast<uint64_t>(view.data - data);
    ranges.emplace_back(begin, begin + static_cast<uint64_t>(view.bytes), &name);
  }
  std::sort(ranges.begin(), ranges.end());
  uint64_t at = 0;
  for (const auto& [begin, end, name] : ranges) {
    if (begin != at) {
      return Fault(*name, absl::StrCat("expected its bytes to begin at ", at, ", where those before it end, found ",
                                       begin, begin < at ? " (overlap)" : " (hole)"));
    }
    at = end;
  }
  if (at == data_bytes) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("expected ", at, " bytes of data, found ", data_bytes));
}

absl::StatusOr<std::map<std::string, TensorView>> ParseFile(const std::byte* file, size_t file_bytes) {
  uint64_t header_bytes = 0;
  if (file_bytes < kLengthBytes) {
    return absl::InvalidArgumentError(absl::StrCat("expected at least 8 bytes, found ", file_bytes));
  }
  std::memcpy(&header_bytes, file, kLengthBytes);  // x86 and ARM: little-endian, as the format
  if (header_bytes > std::min<uint64_t>(kMaxHeaderBytes, file_bytes - kLengthBytes)) {
    return absl::InvalidArgumentError(
        absl::StrCat("expected a header of at most ", std::min<uint64_t>(kMaxHeaderBytes, file_bytes - kLengthBytes),
                     " bytes, found ", header_bytes, " (truncated or no safetensors file)"));
  }
  const char* header = reinterpret_cast<const char*>(file + kLengthBytes);
  const json parsed = ParseJson({header, header_bytes});
  if (!parsed.is_object()) return absl::InvalidArgumentError("expected a header that is a JSON object");

  const std::byte* data = file + kLengthBytes + header_bytes;
  const uint64_t data_bytes = file_bytes - kLengthBytes - header_bytes;
  std::map<std::string, TensorView> tensors;
  for (const auto& [name, entry] : parsed.items()) {
    if (name == "__metadata__") continue;
    ASSIGN_OR_RETURN(tensors[name], ParseTensor(name, entry, data, data_bytes));
  }
  RETURN_IF_ERROR(CheckCover(tensors, data, data_bytes));
  return tensors;
}

absl::Status SystemFault(const std::string& path, const char* call) {
  const int error = errno;
  const std::string message = absl::StrCat(path, ": ", call, ": ", std::strerror(error));
  return error == ENOENT ? absl::NotFoundError(message) : absl::InvalidArgumentError(message);
}

}  // namespace

int64_t TensorView::elements() const { return bytes / InfoOf(type).bytes; }

absl::StatusOr<std::unique_ptr<SafetensorsFile>> SafetensorsFile::Open(const std::string& path) {
  const int descriptor = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) return SystemFault(path, "open");
  struct stat info {};
  const bool known = fstat(descriptor, &info) == 0;
  std::unique_ptr<SafetensorsFile> file(new SafetensorsFile);
  file->map_bytes_ = known && S_ISREG(info.st_mode) ? static_cast<size_t>(info.st_size) : 0;
  // An empty file cannot be mapped, and is refused below like any that is too short.
  if (file->map_bytes_ > 0) file->map_ = mmap(nullptr, file->map_bytes_, PROT_READ, MAP_PRIVATE, descriptor, 0);
  const absl::Status fault = file->map_ == MAP_FAILED ? SystemFault(path, "mmap") : absl::OkStatus();
  close(descriptor);
  if (!fault.ok()) {
    file->map_ = nullptr;
    return fault;
  }
  auto tensors = ParseFile(static_cast<const std::byte*>(file->map_), file->map_bytes_);
  RETURN_IF_ERROR(Annotate(tensors.status(), path));
  file->tensors_ = *std::move(tensors);
  return file;
}

SafetensorsFile::~SafetensorsFile() {
  if (map_ != nullptr) munmap(map_, map_bytes_);
}

absl::Status WriteSafetensors(const std::string& path, const std::map<std::string, TensorView>& tensors) {
  // Wide elements first, so that every tensor is aligned to its own.
  std::vector<std::pair<std::string, TensorView>> order(tensors.begin(), tensors.end());
  std::stable_sort(order.begin(), order.end(), [](const auto& a, const auto& b) {
    return InfoOf(a.second.type).bytes > InfoOf(b.second.type).bytes;
  });
  json header = json::object();
  int64_t at = 0;
  for (const auto& [name, view] : order) {
    header[name] = {{"dtype", InfoOf(view.type).name}, {"shape", view.shape}, {"data_offsets", {at, at + view.bytes}}};
    at += view.bytes;
  }
  std::string text = header.dump(-1, ' ', /*ensure_ascii=*/false, json::error_handler_t::replace);
  text.append((8 - text.size() % 8) % 8, ' ');
  const uint64_t length = text.size();

  const std::string temporary = absl::StrCat(path, ".tmp.", getpid());
  std::ofstream file(temporary, std::ios::binary | std::ios::trunc);
  file.write(reinterpret_cast<const char*>(&length), sizeof(length));
  file << text;
  for (const auto& [name, view] : order) file.write(reinterpret_cast<const char*>(view.data), view.bytes);
  file.close();
  if (!file) {
    const absl::Status fault = SystemFault(temporary, "write");
    unlink(temporary.c_str());
    return fault;
  }
  if (rename(temporary.c_str(), path.c_str()) != 0) return SystemFault(path, "rename");
  return absl::OkStatus();
}

}  // namespace salamander::model
