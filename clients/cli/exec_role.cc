#include <unistd.h>

#include <cstring>
#include <vector>

#include "absl/strings/str_cat.h"
#include "clients/cli/commands.h"
#include "clients/cli/errors.h"
#include "clients/cli/programs.h"

namespace salamander::cli {

int ExecRole(const std::string& program, const Args& args) {
  const std::string path = ProgramFolder() + "/" + program;
  std::vector<char*> argv = {const_cast<char*>(path.c_str())};
  for (const std::string& arg : args) argv.push_back(const_cast<char*>(arg.c_str()));
  argv.push_back(nullptr);
  execv(path.c_str(), argv.data());
  return ReportError(absl::NotFoundError(absl::StrCat("cannot start ", path, ": ", std::strerror(errno))));
}

}  // namespace salamander::cli
