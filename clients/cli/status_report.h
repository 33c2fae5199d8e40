// A cluster's status for people and for programs.
#ifndef SALAMANDER_CLIENTS_CLI_STATUS_REPORT_H_
#define SALAMANDER_CLIENTS_CLI_STATUS_REPORT_H_

#include <cstdint>
#include <string>

#include "clients/cpp/types.h"

namespace salamander::cli {

std::string StatusTable(const client::ClusterStatus& status);
// Keys are documented in docs/api.md.
std::string StatusToJson(const client::ClusterStatus& status);
// "512 B", "3.9 MiB", "12.0 GiB".
std::string HumanBytes(double bytes);

}  // namespace salamander::cli

#endif  // SALAMANDER_CLIENTS_CLI_STATUS_REPORT_H_
