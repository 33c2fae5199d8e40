// One thread that runs closures at their times, in order of time (and of posting where times are equal).
#ifndef SALAMANDER_COMMON_BASE_TIMER_THREAD_H_
#define SALAMANDER_COMMON_BASE_TIMER_THREAD_H_

#include <chrono>
#include <condition_variable>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <thread>

namespace salamander {

class TimerThread {
 public:
  using Time = std::chrono::steady_clock::time_point;

  // `name` is what the operating system shows, at most 15 characters.
  explicit TimerThread(std::string name);
  // Drops closures that have not begun, waits for the one that runs. Not from a closure.
  ~TimerThread();
  TimerThread(const TimerThread&) = delete;
  TimerThread& operator=(const TimerThread&) = delete;

  // Any thread, closures included.
  void At(Time when, std::function<void()> closure);
  void Soon(std::function<void()> closure) { At(Time::min(), std::move(closure)); }
  void After(double seconds, std::function<void()> closure);

 private:
  void Run();

  std::mutex mutex_;
  std::condition_variable wake_;
  std::multimap<Time, std::function<void()>> queue_;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace salamander

#endif  // SALAMANDER_COMMON_BASE_TIMER_THREAD_H_
