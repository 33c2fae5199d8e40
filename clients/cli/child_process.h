// A program started by `serve`: its output, its end, and that it never outlives this process.
#ifndef SALAMANDER_CLIENTS_CLI_CHILD_PROCESS_H_
#define SALAMANDER_CLIENTS_CLI_CHILD_PROCESS_H_

#include <sys/types.h>

#include <array>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace salamander::cli {

// Main thread only: the kernel ties a child's life to the thread that started it.
class ChildProcess {
 public:
  // `name` is for messages. The child gets SIGKILL when this process ends in whatever way, is in a process group of its
  // own (a terminal's Ctrl-C reaches only this process, which stops its children in order), and reads /dev/null.
  static absl::StatusOr<std::unique_ptr<ChildProcess>> Start(std::string name, const std::string& program,
                                                             const std::vector<std::string>& args);
  // Kills the child if it still runs, and waits for its end.
  ~ChildProcess();
  ChildProcess(const ChildProcess&) = delete;
  ChildProcess& operator=(const ChildProcess&) = delete;

  const std::string& name() const { return name_; }
  pid_t pid() const { return pid_; }
  bool running() const { return running_; }
  void Signal(int signal_number);

  // Pipes from the child's stdout and stderr, to poll for input; -1 once closed.
  std::array<int, 2> fds() const { return {outputs_[0].fd, outputs_[1].fd}; }
  // Reads what is there without waiting and calls back with every whole line (`error`: of stderr).
  using OnLine = std::function<void(const std::string& line, bool error)>;
  void Read(const OnLine& on_line);

  // If the child has ended since: how, as "exited with status 1" or "was ended by signal 9 (Killed)".
  std::optional<std::string> Reap();
  // Its last lines of both outputs, oldest first.
  const std::deque<std::string>& last_lines() const { return last_lines_; }

 private:
  struct Output {
    int fd = -1;
    std::string partial;  // a line whose end has not come yet
  };
  explicit ChildProcess(std::string name) : name_(std::move(name)) {}
  void Remember(const std::string& line);
  void ReadOutput(Output& output, bool error, const OnLine& on_line);

  std::string name_;
  pid_t pid_ = -1;
  bool running_ = false;
  std::array<Output, 2> outputs_;
  std::deque<std::string> last_lines_;
};

}  // namespace salamander::cli

#endif  // SALAMANDER_CLIENTS_CLI_CHILD_PROCESS_H_
