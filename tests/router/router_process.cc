#include "tests/router/router_process.h"

#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <fstream>

#include "absl/strings/str_cat.h"

extern char** environ;

namespace salamander::router {
namespace {

// The first line the program prints, or what there is of it at its end.
std::string ReadLine(int fd) {
  std::string line;
  char byte;
  while (read(fd, &byte, 1) == 1 && byte != '\n') line += byte;
  return line;
}

}  // namespace

absl::StatusOr<std::unique_ptr<RouterProcess>> RouterProcess::Start(const std::string& program,
                                                                    const std::vector<std::string>& args) {
  int out[2];
  if (pipe(out) != 0) return absl::ErrnoToStatus(errno, "pipe");
  std::vector<char*> argv = {const_cast<char*>(program.c_str())};
  for (const std::string& arg : args) argv.push_back(const_cast<char*>(arg.c_str()));
  argv.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, out[1], STDOUT_FILENO);
  posix_spawn_file_actions_addclose(&actions, out[0]);
  std::unique_ptr<RouterProcess> process(new RouterProcess());
  const int error = posix_spawn(&process->pid_, program.c_str(), &actions, nullptr, argv.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  close(out[1]);
  if (error != 0) process->pid_ = -1;
  const std::string line = error == 0 ? ReadLine(out[0]) : "";
  close(out[0]);
  // "serving grpc=HOST:PORT metrics=…"
  const std::string key = "grpc=";
  const size_t at = line.find(key);
  if (at == std::string::npos) return absl::UnavailableError(absl::StrCat(program, " does not serve"));
  process->address_ = line.substr(at + key.size(), line.find(' ', at) - at - key.size());
  return process;
}

RouterProcess::~RouterProcess() {
  if (pid_ < 0) return;
  kill(pid_, SIGTERM);
  waitpid(pid_, nullptr, 0);
}

double RouterProcess::CpuSeconds() const {
  std::ifstream file(absl::StrCat("/proc/", pid_, "/stat"));
  std::string text;
  std::getline(file, text);
  // Fields after the name, which may hold anything, in parentheses: utime and stime are the 12th and 13th.
  char state;
  long long user = 0, system = 0;
  std::sscanf(text.c_str() + text.rfind(')') + 2, "%c %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %lld %lld", &state, &user,
              &system);
  return static_cast<double>(user + system) / sysconf(_SC_CLK_TCK);
}

}  // namespace salamander::router
