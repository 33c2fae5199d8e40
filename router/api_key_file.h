// The file that says which API keys there are and what each may do:
//
//   {"keys": [{"name": "team-a", "sha256": "<64 hexadecimal digits>", "requests_per_minute": 600,
//              "tokens_per_minute": 2000000, "concurrent_requests": 16}]}
//
// It has the keys' SHA-256 only: keys are long and random, so that nobody gets from one to the other.
#ifndef SALAMANDER_ROUTER_API_KEY_FILE_H_
#define SALAMANDER_ROUTER_API_KEY_FILE_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace salamander::router {

// Not given: not limited.
struct ApiKeyLimits {
  std::optional<double> requests_per_minute;
  std::optional<double> tokens_per_minute;  // of prompts and answers
  std::optional<int64_t> concurrent_requests;
};

struct ApiKeyEntry {
  std::string name;    // a metrics' label: 1 to 64 of A-Z a-z 0-9 . _ -
  std::string sha256;  // 32 bytes
  ApiKeyLimits limits;
};

// INVALID_ARGUMENT naming the entry and the field. Names and hashes are distinct, and there is nothing in the file that
// is not known: a limit with a misspelt name must not go unnoticed.
absl::StatusOr<std::vector<ApiKeyEntry>> ParseApiKeys(const std::string& json);

// 32 bytes.
std::string Sha256(const std::string& text);

}  // namespace salamander::router

#endif  // SALAMANDER_ROUTER_API_KEY_FILE_H_
