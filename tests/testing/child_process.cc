#include "tests/testing/child_process.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <fstream>
#include <sstream>
#include <thread>

#include "absl/strings/str_cat.h"
#include "common/base/clock.h"
#include "tests/testing/paths.h"

namespace salamander::testing {
namespace {

constexpr size_t kLastWordsBytes = 3000;

// Between fork and exec: only calls that a signal handler might make.
[[noreturn]] void RunChild(const char* program, char* const* argv, int output, int log) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  dup2(output, STDOUT_FILENO);
  dup2(log, STDERR_FILENO);
  execv(program, argv);
  _exit(127);
}

}  // namespace

absl::StatusOr<std::unique_ptr<ChildProcess>> ChildProcess::Start(const std::string& program,
                                                                  const std::vector<std::string>& arguments,
                                                                  const std::string& log) {
  const std::string path = absl::StrCat(BinDir(), "/", program);
  std::vector<char*> argv = {const_cast<char*>(path.c_str())};
  for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  const int log_fd = open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (log_fd < 0) return absl::ErrnoToStatus(errno, absl::StrCat("open ", log));
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) {
    const int error = errno;
    close(log_fd);
    return absl::ErrnoToStatus(error, "pipe2");
  }
  const pid_t pid = fork();
  if (pid == 0) RunChild(path.c_str(), argv.data(), ends[1], log_fd);
  const int error = errno;
  close(log_fd);
  close(ends[1]);
  if (pid < 0) {
    close(ends[0]);
    return absl::ErrnoToStatus(error, "fork");
  }
  return std::unique_ptr<ChildProcess>(new ChildProcess(pid, ends[0], log));
}

ChildProcess::~ChildProcess() {
  Signal(SIGKILL);
  if (exit_code_ < 0) waitpid(pid_, nullptr, 0);
  close(output_);
}

void ChildProcess::Signal(int signal_number) {
  if (exit_code_ < 0) kill(pid_, signal_number);
}

absl::StatusOr<std::string> ChildProcess::ReadLine(double seconds) {
  const double deadline = RealClock().Now() + seconds;
  std::string line;
  for (;;) {
    pollfd wait{output_, POLLIN, 0};
    const double left = deadline - RealClock().Now();
    char byte = 0;
    if (left <= 0 || poll(&wait, 1, static_cast<int>(left * 1000) + 1) <= 0) {
      return absl::UnavailableError(absl::StrCat("no line after ", seconds, " s; log ends:\n", LastWords()));
    }
    if (read(output_, &byte, 1) != 1) {
      return absl::UnavailableError(absl::StrCat("it closed stdout; log ends:\n", LastWords()));
    }
    if (byte == '\n') return line;
    line.push_back(byte);
  }
}

absl::StatusOr<int> ChildProcess::WaitForExit(double seconds) {
  const double deadline = RealClock().Now() + seconds;
  while (exit_code_ < 0) {
    int state = 0;
    if (waitpid(pid_, &state, WNOHANG) == pid_) {
      exit_code_ = WIFEXITED(state) ? WEXITSTATUS(state) : 128 + WTERMSIG(state);
    } else if (RealClock().Now() > deadline) {
      return absl::DeadlineExceededError(absl::StrCat("process ", pid_, " still runs after ", seconds, " s"));
    } else {
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
  }
  return exit_code_;
}

std::string ChildProcess::LastWords() const {
  std::ostringstream text;
  text << std::ifstream(log_).rdbuf();
  const std::string all = text.str();
  return all.size() <= kLastWordsBytes ? all : all.substr(all.size() - kLastWordsBytes);
}

}  // namespace salamander::testing
