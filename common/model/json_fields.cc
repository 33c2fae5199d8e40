#include "common/model/json_fields.h"

#include <cmath>

#include "absl/strings/str_cat.h"

namespace salamander::model {

nlohmann::json ParseJson(std::string_view text) {
  constexpr int kMaxDepth = 64;
  bool too_deep = false;
  const auto shallow = [&](int depth, nlohmann::json::parse_event_t, nlohmann::json&) {
    too_deep |= depth > kMaxDepth;
    return depth <= kMaxDepth;
  };
  nlohmann::json parsed = nlohmann::json::parse(text, shallow, /*allow_exceptions=*/false);
  return too_deep ? nlohmann::json(nlohmann::json::value_t::discarded) : parsed;
}

std::string Show(const nlohmann::json& value) {
  constexpr size_t kShown = 80;
  const std::string text = value.dump(-1, ' ', /*ensure_ascii=*/true);
  return text.size() <= kShown ? text : text.substr(0, kShown) + "…";
}

const nlohmann::json* JsonFields::Find(const char* key) const {
  const auto found = object_.find(key);
  return found == object_.end() || found->is_null() ? nullptr : &*found;
}

void JsonFields::Fail(const char* key, const std::string& expected, const std::string& found) {
  if (!status_.ok()) return;
  status_ = absl::InvalidArgumentError(absl::StrCat(prefix_, key, ": expected ", expected, ", found ", found));
}

int64_t JsonFields::Integer(const char* key, int64_t low, int64_t high, std::optional<int64_t> fallback) {
  const std::string expected = absl::StrCat("a whole number from ", low, " to ", high);
  const nlohmann::json* value = Find(key);
  if (value == nullptr) {
    if (!fallback.has_value()) Fail(key, expected, "no such key");
    return fallback.value_or(low);
  }
  // An unsigned number beyond int64 would wrap to a negative one.
  const bool wraps = value->is_number_unsigned() && value->get<int64_t>() < 0;
  if (!value->is_number_integer() || wraps || value->get<int64_t>() < low || value->get<int64_t>() > high) {
    Fail(key, expected, Show(*value));
    return low;
  }
  return value->get<int64_t>();
}

double JsonFields::Positive(const char* key, std::optional<double> fallback) {
  const nlohmann::json* value = Find(key);
  if (value == nullptr) {
    if (!fallback.has_value()) Fail(key, "a number greater than 0", "no such key");
    return fallback.value_or(1);
  }
  const double number = value->is_number() ? value->get<double>() : 0;
  if (!(number > 0) || !std::isfinite(number)) {
    Fail(key, "a number greater than 0", Show(*value));
    return 1;
  }
  return number;
}

bool JsonFields::Boolean(const char* key, bool fallback) {
  const nlohmann::json* value = Find(key);
  if (value == nullptr) return fallback;
  if (!value->is_boolean()) {
    Fail(key, "true or false", Show(*value));
    return fallback;
  }
  return value->get<bool>();
}

}  // namespace salamander::model
