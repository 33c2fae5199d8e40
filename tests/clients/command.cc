#include "tests/clients/command.h"

#include <fcntl.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "common/base/clock.h"
#include "tests/testing/paths.h"

namespace salamander::testing {
namespace {

std::vector<char*> Pointers(const std::vector<std::string>& strings) {
  std::vector<char*> pointers;
  for (const std::string& text : strings) pointers.push_back(const_cast<char*>(text.c_str()));
  pointers.push_back(nullptr);
  return pointers;
}

// Appends what there is; false at the stream's end. (A terminal whose other side is closed reports EIO.)
bool Take(int fd, std::string& to) {
  char buffer[4096];
  const ssize_t count = read(fd, buffer, sizeof(buffer));
  if (count > 0) to.append(buffer, count);
  return count > 0;
}

}  // namespace

Command::Command(const std::vector<std::string>& args, const CommandOptions& options) {
  std::vector<std::string> all = {BinDir() + "/salamander"};
  all.insert(all.end(), args.begin(), args.end());
  std::vector<std::string> environment = options.environment;
  for (char** entry = environ; *entry != nullptr; ++entry) environment.emplace_back(*entry);
  const std::vector<char*> argv = Pointers(all), envp = Pointers(environment);

  int in[2], out[2], err[2];
  if (pipe2(in, O_CLOEXEC) != 0 || pipe2(out, O_CLOEXEC) != 0) std::abort();
  winsize size{.ws_row = 24, .ws_col = 100};
  if (options.terminal ? openpty(&err[0], &err[1], nullptr, nullptr, &size) : pipe2(err, O_CLOEXEC)) std::abort();
  fcntl(err[0], F_SETFD, FD_CLOEXEC);
  pid_ = fork();
  if (pid_ == 0) {
    setpgid(0, 0);
    dup2(in[0], STDIN_FILENO);
    dup2(out[1], STDOUT_FILENO);
    dup2(err[1], STDERR_FILENO);
    if (options.terminal) close(err[1]);
    execve(argv[0], argv.data(), envp.data());
    _exit(127);
  }
  setpgid(pid_, pid_);  // here too: whichever comes first
  if (write(in[1], options.input.data(), options.input.size()) < 0) std::abort();
  for (int fd : {in[0], in[1], out[1], err[1]}) close(fd);
  out_fd_ = out[0];
  err_fd_ = err[0];
}

Command::~Command() {
  if (!reaped_) {
    Signal(SIGKILL);
    waitpid(pid_, nullptr, 0);
  }
  for (int fd : {out_fd_, err_fd_}) {
    if (fd >= 0) close(fd);
  }
}

void Command::Signal(int signal_number) { kill(-pid_, signal_number); }

bool Command::Pump(double until) {
  if (out_fd_ < 0 && err_fd_ < 0) return false;
  pollfd ready[2] = {{out_fd_, POLLIN, 0}, {err_fd_, POLLIN, 0}};
  const double left = until - RealClock().Now();
  if (left <= 0 || poll(ready, 2, static_cast<int>(left * 1000) + 1) <= 0) return false;
  if (ready[0].revents != 0 && !Take(out_fd_, out_)) close(std::exchange(out_fd_, -1));
  if (ready[1].revents != 0 && !Take(err_fd_, err_)) close(std::exchange(err_fd_, -1));
  return true;
}

bool Command::WaitFor(const std::string& text, double timeout_seconds) {
  const double until = RealClock().Now() + timeout_seconds;
  auto found = [&] { return out_.find(text) != std::string::npos || err_.find(text) != std::string::npos; };
  while (!found()) {
    if (!Pump(until)) return found();
  }
  return true;
}

int Command::Wait(double timeout_seconds) {
  const double until = RealClock().Now() + timeout_seconds;
  while (Pump(until)) {
  }
  if (out_fd_ >= 0 || err_fd_ >= 0) return -1;
  int status = 0;
  waitpid(pid_, &status, 0);
  reaped_ = true;
  return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

}  // namespace salamander::testing
