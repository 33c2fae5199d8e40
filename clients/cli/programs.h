// Where the programs of the roles are: beside this one.
#ifndef SALAMANDER_CLIENTS_CLI_PROGRAMS_H_
#define SALAMANDER_CLIENTS_CLI_PROGRAMS_H_

#include <filesystem>
#include <string>
#include <system_error>

namespace salamander::cli {

// The folder of the running program; "." should /proc be missing.
inline std::string ProgramFolder() {
  std::error_code error;
  const std::filesystem::path self = std::filesystem::read_symlink("/proc/self/exe", error);
  return error ? "." : self.parent_path().string();
}

}  // namespace salamander::cli

#endif  // SALAMANDER_CLIENTS_CLI_PROGRAMS_H_
