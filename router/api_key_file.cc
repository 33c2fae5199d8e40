#include "router/api_key_file.h"

#include <openssl/evp.h>

#include <algorithm>
#include <initializer_list>
#include <set>
#include <string_view>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/model/json_fields.h"

namespace salamander::router {
namespace {

constexpr size_t kMaxNameBytes = 64;
constexpr size_t kHashBytes = 32;
constexpr int64_t kMaxConcurrent = int64_t{1} << 30;

absl::Status CheckKnown(const nlohmann::json& object, const std::string& what,
                        std::initializer_list<std::string_view> known) {
  if (!object.is_object()) return absl::InvalidArgumentError(what + " must be an object");
  for (const auto& [key, value] : object.items()) {
    if (std::find(known.begin(), known.end(), key) == known.end()) {
      return absl::InvalidArgumentError(absl::StrCat(what, " has an unknown field \"", absl::CHexEscape(key), "\""));
    }
  }
  return absl::OkStatus();
}

bool IsName(const std::string& text) {
  return !text.empty() && text.size() <= kMaxNameBytes && std::all_of(text.begin(), text.end(), [](char c) {
    return absl::ascii_isalnum(c) || c == '.' || c == '_' || c == '-';
  });
}

std::string Text(const nlohmann::json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_string() ? found->get<std::string>() : "";
}

absl::StatusOr<ApiKeyEntry> ParseEntry(const nlohmann::json& object, const std::string& what) {
  RETURN_IF_ERROR(
      CheckKnown(object, what, {"name", "sha256", "requests_per_minute", "tokens_per_minute", "concurrent_requests"}));
  ApiKeyEntry entry{.name = Text(object, "name"), .sha256 = {}, .limits = {}};
  if (!IsName(entry.name)) {
    return absl::InvalidArgumentError(
        absl::StrCat(what, ".name must be 1 to ", kMaxNameBytes, " letters, digits, dots, underscores and hyphens"));
  }
  const std::string hash = Text(object, "sha256");
  if (hash.size() != 2 * kHashBytes ||
      !std::all_of(hash.begin(), hash.end(), [](char c) { return absl::ascii_isxdigit(c); })) {
    return absl::InvalidArgumentError(
        absl::StrCat(what, ".sha256 must be the key's SHA-256, 64 hexadecimal digits (name ", entry.name, ")"));
  }
  entry.sha256 = absl::HexStringToBytes(hash);
  model::JsonFields fields(object, what + ".");
  if (fields.Find("requests_per_minute")) entry.limits.requests_per_minute = fields.Positive("requests_per_minute");
  if (fields.Find("tokens_per_minute")) entry.limits.tokens_per_minute = fields.Positive("tokens_per_minute");
  if (fields.Find("concurrent_requests")) {
    entry.limits.concurrent_requests = fields.Integer("concurrent_requests", 1, kMaxConcurrent);
  }
  RETURN_IF_ERROR(fields.status());
  return entry;
}

}  // namespace

absl::StatusOr<std::vector<ApiKeyEntry>> ParseApiKeys(const std::string& json) {
  const nlohmann::json file = model::ParseJson(json);
  if (file.is_discarded()) return absl::InvalidArgumentError("is not JSON");
  RETURN_IF_ERROR(CheckKnown(file, "the file", {"keys"}));
  const auto keys = file.find("keys");
  if (keys == file.end() || !keys->is_array()) return absl::InvalidArgumentError("keys must be a list");
  std::vector<ApiKeyEntry> entries;
  std::set<std::string> names, hashes;
  for (const nlohmann::json& object : *keys) {
    ASSIGN_OR_RETURN(ApiKeyEntry entry, ParseEntry(object, absl::StrCat("keys[", entries.size(), "]")));
    if (!names.insert(entry.name).second) {
      return absl::InvalidArgumentError(absl::StrCat("there are two keys of the name ", entry.name));
    }
    if (!hashes.insert(entry.sha256).second) {
      return absl::InvalidArgumentError(absl::StrCat("key ", entry.name, " has the sha256 of another"));
    }
    entries.push_back(std::move(entry));
  }
  return entries;
}

std::string Sha256(const std::string& text) {
  std::string hash(kHashBytes, '\0');
  EVP_Digest(text.data(), text.size(), reinterpret_cast<unsigned char*>(hash.data()), nullptr, EVP_sha256(), nullptr);
  return hash;
}

}  // namespace salamander::router
