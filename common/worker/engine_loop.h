// The engine thread of a worker: the one thread that owns the Ops and every request's state.
//
// Other threads (gRPC callbacks, streams) only post closures or wake it; so nothing it owns needs a lock. Between
// closures it calls `turn`, which does one unit of work (a phase of a span, a decode step), so a closure waits for one
// unit at most.
//
//   EngineLoop loop("prefill-engine", [&] { return executor.Turn(); });
//   loop.Post([&] { executor.OnCommand(...); });
#ifndef SALAMANDER_COMMON_WORKER_ENGINE_LOOP_H_
#define SALAMANDER_COMMON_WORKER_ENGINE_LOOP_H_

#include <condition_variable>
#include <functional>
#include <limits>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace salamander::worker {

class EngineLoop {
 public:
  // What a turn returns: seconds until it wants another one although nothing was posted.
  static constexpr double kAgain = 0;
  static constexpr double kWhenWoken = std::numeric_limits<double>::infinity();

  EngineLoop() = default;
  ~EngineLoop() { Stop(); }
  EngineLoop(const EngineLoop&) = delete;
  EngineLoop& operator=(const EngineLoop&) = delete;

  // Once. Closures posted before are run first.
  void Start(const std::string& name, std::function<double()> turn);
  // Runs what was posted, without further turns, and joins. Nothing is posted afterwards. Not on the engine thread.
  void Stop();

  // Any thread, also from closures and turns. In order.
  void Post(std::function<void()> closure);
  // Any thread: asks for a turn.
  void Wake();

 private:
  void Run();

  std::function<double()> turn_;
  std::thread thread_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::vector<std::function<void()>> posted_;
  bool woken_ = false;
  bool stopping_ = false;
};

}  // namespace salamander::worker

#endif  // SALAMANDER_COMMON_WORKER_ENGINE_LOOP_H_
