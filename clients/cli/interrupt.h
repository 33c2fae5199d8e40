// Ctrl-C and SIGTERM as a callback on an ordinary thread, for commands that have something to cancel.
#ifndef SALAMANDER_CLIENTS_CLI_INTERRUPT_H_
#define SALAMANDER_CLIENTS_CLI_INTERRUPT_H_

#include <atomic>
#include <functional>
#include <memory>
#include <thread>

namespace salamander::cli {

// Blocks SIGINT and SIGTERM in the calling thread and in all threads started afterwards, so it must be made before any
// other thread (a gRPC channel starts some). A second signal ends the process at once.
class Interrupt {
 public:
  Interrupt();
  ~Interrupt();
  Interrupt(const Interrupt&) = delete;
  Interrupt& operator=(const Interrupt&) = delete;

  // Called once, on this object's thread, when the first signal arrives; at once if it already did. The callee must
  // stay valid until the next call or destruction; pass nullptr to have that before it goes away.
  void OnSignal(std::function<void()> callback);
  // The signal that arrived, or 0.
  int signal() const { return signal_.load(); }
  // 128 + signal: what a shell reports for a program that the signal ended.
  int exit_code() const { return 128 + signal(); }

 private:
  struct Watch;
  void Run();

  std::atomic<int> signal_ = 0;
  std::unique_ptr<Watch> watch_;
  std::thread thread_;
};

}  // namespace salamander::cli

#endif  // SALAMANDER_CLIENTS_CLI_INTERRUPT_H_
