#include "clients/cli/child_process.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"

namespace salamander::cli {
namespace {

constexpr size_t kLinesKept = 20;

// Runs in the child between fork and exec, where only async-signal-safe calls are allowed.
[[noreturn]] void BecomeProgram(pid_t parent, int out, int err, const char* program, char* const* argv) {
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  setpgid(0, 0);
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(1);  // it died before the line above
  const int null = open("/dev/null", O_RDONLY);
  if (null >= 0) dup2(null, STDIN_FILENO);
  dup2(out, STDOUT_FILENO);
  dup2(err, STDERR_FILENO);
  execv(program, argv);
  const char* const words[] = {program, ": ", strerrordesc_np(errno), "\n"};
  for (const char* word : words) {
    if (write(STDERR_FILENO, word, std::strlen(word)) < 0) break;  // nobody listens
  }
  _exit(127);
}

}  // namespace

absl::StatusOr<std::unique_ptr<ChildProcess>> ChildProcess::Start(std::string name, const std::string& program,
                                                                  const std::vector<std::string>& args) {
  int out[2], err[2];
  if (pipe2(out, O_CLOEXEC) != 0) return absl::ErrnoToStatus(errno, absl::StrCat("cannot start ", name));
  if (pipe2(err, O_CLOEXEC) != 0) {
    close(out[0]);
    close(out[1]);
    return absl::ErrnoToStatus(errno, absl::StrCat("cannot start ", name));
  }
  std::vector<char*> argv = {const_cast<char*>(program.c_str())};
  for (const std::string& arg : args) argv.push_back(const_cast<char*>(arg.c_str()));
  argv.push_back(nullptr);

  const pid_t parent = getpid();
  const pid_t pid = fork();
  if (pid == 0) BecomeProgram(parent, out[1], err[1], program.c_str(), argv.data());
  close(out[1]);
  close(err[1]);
  std::unique_ptr<ChildProcess> child(new ChildProcess(std::move(name)));
  child->outputs_[0].fd = out[0];
  child->outputs_[1].fd = err[0];
  for (const Output& output : child->outputs_) fcntl(output.fd, F_SETFL, O_NONBLOCK);
  if (pid < 0) return absl::ErrnoToStatus(errno, absl::StrCat("cannot start ", child->name_));
  child->pid_ = pid;
  child->running_ = true;
  return child;
}

ChildProcess::~ChildProcess() {
  if (running_) {
    kill(pid_, SIGKILL);
    while (waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
    }
  }
  for (const Output& output : outputs_) {
    if (output.fd >= 0) close(output.fd);
  }
}

void ChildProcess::Signal(int signal_number) {
  if (running_) kill(pid_, signal_number);
}

void ChildProcess::Remember(const std::string& line) {
  last_lines_.push_back(line);
  if (last_lines_.size() > kLinesKept) last_lines_.pop_front();
}

void ChildProcess::ReadOutput(Output& output, bool error, const OnLine& on_line) {
  char buffer[4096];
  while (output.fd >= 0) {
    const ssize_t count = read(output.fd, buffer, sizeof(buffer));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0 && errno == EAGAIN) return;
    if (count <= 0) {
      close(std::exchange(output.fd, -1));
      if (!output.partial.empty()) output.partial += '\n';
    } else {
      output.partial.append(buffer, count);
    }
    size_t begin = 0;
    for (size_t end; (end = output.partial.find('\n', begin)) != std::string::npos; begin = end + 1) {
      const std::string line = output.partial.substr(begin, end - begin);
      Remember(line);
      on_line(line, error);
    }
    output.partial.erase(0, begin);
  }
}

void ChildProcess::Read(const OnLine& on_line) {
  ReadOutput(outputs_[0], false, on_line);
  ReadOutput(outputs_[1], true, on_line);
}

std::optional<std::string> ChildProcess::Reap() {
  int status = 0;
  if (!running_ || waitpid(pid_, &status, WNOHANG) != pid_) return std::nullopt;
  running_ = false;
  if (WIFSIGNALED(status)) {
    return absl::StrCat("was ended by signal ", WTERMSIG(status), " (", sigdescr_np(WTERMSIG(status)), ")");
  }
  return absl::StrCat("exited with status ", WEXITSTATUS(status));
}

}  // namespace salamander::cli
