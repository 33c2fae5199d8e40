// One of the project's programs as a child of a test. Killed with it, whatever way the test ends.
#ifndef SALAMANDER_TESTS_TESTING_CHILD_PROCESS_H_
#define SALAMANDER_TESTS_TESTING_CHILD_PROCESS_H_

#include <sys/types.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace salamander::testing {

// Main thread only: the kernel ties the child's life to the thread that started it.
class ChildProcess {
 public:
  // `program` is beside the test. The child's stderr goes to the file `log`.
  static absl::StatusOr<std::unique_ptr<ChildProcess>> Start(const std::string& program,
                                                             const std::vector<std::string>& arguments,
                                                             const std::string& log);
  // SIGKILL, if it still runs.
  ~ChildProcess();
  ChildProcess(const ChildProcess&) = delete;
  ChildProcess& operator=(const ChildProcess&) = delete;

  pid_t pid() const { return pid_; }
  const std::string& log() const { return log_; }
  // The first line of stdout. UNAVAILABLE, with the end of its log, if it closes stdout or `seconds` pass before.
  absl::StatusOr<std::string> ReadLine(double seconds);
  void Signal(int signal_number);
  // The exit code, or 128 + the signal that ended it. DEADLINE_EXCEEDED if it runs on.
  absl::StatusOr<int> WaitForExit(double seconds);
  // The last lines of its log.
  std::string LastWords() const;

 private:
  ChildProcess(pid_t pid, int output, std::string log) : pid_(pid), output_(output), log_(std::move(log)) {}
  pid_t pid_;
  int output_;  // read end of its stdout
  std::string log_;
  int exit_code_ = -1;  // once reaped
};

}  // namespace salamander::testing

#endif  // SALAMANDER_TESTS_TESTING_CHILD_PROCESS_H_
