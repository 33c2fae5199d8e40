// Runs the `salamander` program as a user would: its streams, its signals, its exit code.
#ifndef SALAMANDER_TESTS_CLIENTS_COMMAND_H_
#define SALAMANDER_TESTS_CLIENTS_COMMAND_H_

#include <sys/types.h>

#include <string>
#include <vector>

namespace salamander::testing {

struct CommandOptions {
  // stderr is a terminal of 100 columns instead of a pipe.
  bool terminal = false;
  // For stdin; then its end.
  std::string input;
  std::vector<std::string> environment;  // NAME=VALUE
};

class Command {
 public:
  explicit Command(const std::vector<std::string>& args, const CommandOptions& options = {});
  // Kills it if it still runs.
  ~Command();
  Command(const Command&) = delete;
  Command& operator=(const Command&) = delete;

  pid_t pid() const { return pid_; }
  // To its whole process group, as a terminal's Ctrl-C is.
  void Signal(int signal_number);
  // Reads both streams until `text` appears in stdout or stderr; false if that takes too long or the program ends
  // without it.
  bool WaitFor(const std::string& text, double timeout_seconds = 30);
  // Reads to the end of both streams. The exit code, 128 + signal for a signal's victim, or -1 if it takes too long.
  int Wait(double timeout_seconds = 30);

  const std::string& out() const { return out_; }
  const std::string& err() const { return err_; }

 private:
  // Waits for output and takes it; false once both streams have ended or the time is over.
  bool Pump(double until);

  pid_t pid_ = -1;
  int out_fd_ = -1;
  int err_fd_ = -1;
  std::string out_;
  std::string err_;
  bool reaped_ = false;
};

}  // namespace salamander::testing

#endif  // SALAMANDER_TESTS_CLIENTS_COMMAND_H_
