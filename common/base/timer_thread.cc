#include "common/base/timer_thread.h"

#include <utility>

#include "common/base/thread_pool.h"

namespace salamander {

TimerThread::TimerThread(std::string name) {
  thread_ = std::thread([this, name = std::move(name)] {
    SetThreadName(name);
    Run();
  });
}

TimerThread::~TimerThread() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  thread_.join();
}

void TimerThread::At(Time when, std::function<void()> closure) {
  {
    std::lock_guard lock(mutex_);
    const bool sooner = queue_.empty() || when < queue_.begin()->first;
    queue_.emplace(when, std::move(closure));
    if (!sooner) return;  // It wakes for another one before.
  }
  wake_.notify_one();
}

void TimerThread::After(double seconds, std::function<void()> closure) {
  const auto delay =
      std::chrono::duration_cast<std::chrono::steady_clock::duration>(std::chrono::duration<double>(seconds));
  At(std::chrono::steady_clock::now() + delay, std::move(closure));
}

void TimerThread::Run() {
  std::unique_lock lock(mutex_);
  while (!stopping_) {
    if (queue_.empty()) {
      wake_.wait(lock);
      continue;
    }
    const Time due = queue_.begin()->first;
    if (due > std::chrono::steady_clock::now()) {
      wake_.wait_until(lock, due);
      continue;
    }
    std::function<void()> closure = std::move(queue_.begin()->second);
    queue_.erase(queue_.begin());
    lock.unlock();
    closure();
    closure = nullptr;
    lock.lock();
  }
}

}  // namespace salamander
