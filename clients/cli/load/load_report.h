// What a load run comes to, for a person and for programs.
#ifndef SALAMANDER_CLIENTS_CLI_LOAD_LOAD_REPORT_H_
#define SALAMANDER_CLIENTS_CLI_LOAD_LOAD_REPORT_H_

#include <nlohmann/json.hpp>
#include <string>

#include "clients/cli/load/load_run.h"

namespace salamander::cli {

struct ServiceLevels {
  // Seconds; a request is good if it completed with a time to first token and a mean inter-token time within these.
  double ttft = 10;
  double itl = 0.2;
};

// docs/operations.md describes the keys. `workload` and `router` are put in as they are.
nlohmann::ordered_json LoadReport(const LoadResult& result, const ServiceLevels& levels,
                                  nlohmann::ordered_json workload, nlohmann::ordered_json router);
// The same as a few lines of text.
std::string LoadSummary(const nlohmann::ordered_json& report);

}  // namespace salamander::cli

#endif  // SALAMANDER_CLIENTS_CLI_LOAD_LOAD_REPORT_H_
