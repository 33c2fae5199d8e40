// JSON as the commands print it.
#ifndef SALAMANDER_CLIENTS_CLI_JSON_H_
#define SALAMANDER_CLIENTS_CLI_JSON_H_

#include <nlohmann/json.hpp>
#include <string>

namespace salamander::cli {

// Without exceptions: bytes that are no UTF-8 become U+FFFD. Keys keep their order. `indent` -1: one line.
inline std::string DumpJson(const nlohmann::ordered_json& json, int indent = -1) {
  return json.dump(indent, ' ', /*ensure_ascii=*/false, nlohmann::ordered_json::error_handler_t::replace);
}

}  // namespace salamander::cli

#endif  // SALAMANDER_CLIENTS_CLI_JSON_H_
