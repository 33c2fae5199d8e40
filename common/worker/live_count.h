// How many requests a worker holds memory for, and a way to wait until there are none. Any thread.
#ifndef SALAMANDER_COMMON_WORKER_LIVE_COUNT_H_
#define SALAMANDER_COMMON_WORKER_LIVE_COUNT_H_

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>

namespace salamander::worker {

class LiveCount {
 public:
  void Add(int64_t change) {
    // Notified under the lock: the waiter may destroy this object as soon as it has it.
    std::lock_guard lock(mutex_);
    count_ += change;
    if (count_ == 0) zero_.notify_all();
  }
  int64_t Read() const {
    std::lock_guard lock(mutex_);
    return count_;
  }
  // False if there are still some after `seconds`.
  bool WaitForZero(double seconds) {
    std::unique_lock lock(mutex_);
    return zero_.wait_for(lock, std::chrono::duration<double>(seconds), [this] { return count_ == 0; });
  }
  void WaitForZero() {
    std::unique_lock lock(mutex_);
    zero_.wait(lock, [this] { return count_ == 0; });
  }

 private:
  mutable std::mutex mutex_;
  std::condition_variable zero_;
  int64_t count_ = 0;
};

}  // namespace salamander::worker

#endif  // SALAMANDER_COMMON_WORKER_LIVE_COUNT_H_
