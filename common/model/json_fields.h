// Typed, checked access to the keys of a JSON object. Messages name the key, what was expected and what was found.
#ifndef SALAMANDER_COMMON_MODEL_JSON_FIELDS_H_
#define SALAMANDER_COMMON_MODEL_JSON_FIELDS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "nlohmann/json.hpp"

namespace salamander::model {

// The value, or a discarded one if `text` is no JSON or nests deeper than any file we read (printing and copying a JSON
// value recurse).
nlohmann::json ParseJson(std::string_view text);

// A value as a message shows it, cut to a readable length.
std::string Show(const nlohmann::json& value);

// Reads keys and keeps the first fault, so that a list of reads needs one check at its end. A key that is absent or
// null takes the fallback; without a fallback that is a fault. `prefix` is put in front of keys in messages.
class JsonFields {
 public:
  JsonFields(const nlohmann::json& object, std::string prefix) : object_(object), prefix_(std::move(prefix)) {}

  // A whole number in [low, high].
  int64_t Integer(const char* key, int64_t low, int64_t high, std::optional<int64_t> fallback = std::nullopt);
  // A finite number greater than 0.
  double Positive(const char* key, std::optional<double> fallback = std::nullopt);
  bool Boolean(const char* key, bool fallback);

  // The value, or null if the key is absent.
  const nlohmann::json* Find(const char* key) const;
  void Fail(const char* key, const std::string& expected, const std::string& found);
  const absl::Status& status() const { return status_; }

 private:
  const nlohmann::json& object_;
  std::string prefix_;
  absl::Status status_;
};

}  // namespace salamander::model

#endif  // SALAMANDER_COMMON_MODEL_JSON_FIELDS_H_
