// Calls something every now and then, until destroyed.
#ifndef SALAMANDER_ROUTER_TICKER_H_
#define SALAMANDER_ROUTER_TICKER_H_

#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <utility>

#include "common/base/thread_pool.h"

namespace salamander::router {

// A thread of its own, of which `tick` may take as much as it needs.
class Ticker {
 public:
  Ticker(std::string name, double seconds, std::function<void()> tick)
      : thread_(
            [this, name = std::move(name), period = std::chrono::duration<double>(seconds), tick = std::move(tick)] {
              SetThreadName(name);
              std::unique_lock lock(mutex_);
              while (!wake_.wait_for(lock, period, [this] { return stopping_; })) tick();
            }) {}

  ~Ticker() {
    {
      std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    wake_.notify_all();
    thread_.join();
  }

 private:
  std::mutex mutex_;
  std::condition_variable wake_;
  bool stopping_ = false;
  std::thread thread_;  // last: it uses the others
};

}  // namespace salamander::router

#endif  // SALAMANDER_ROUTER_TICKER_H_
