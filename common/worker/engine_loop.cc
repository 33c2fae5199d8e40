#include "common/worker/engine_loop.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "common/base/thread_pool.h"

namespace salamander::worker {

void EngineLoop::Start(const std::string& name, std::function<double()> turn) {
  turn_ = std::move(turn);
  thread_ = std::thread([this, name] {
    SetThreadName(name);
    Run();
  });
}

void EngineLoop::Stop() {
  if (!thread_.joinable()) return;
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_one();
  thread_.join();
}

void EngineLoop::Post(std::function<void()> closure) {
  {
    std::lock_guard lock(mutex_);
    posted_.push_back(std::move(closure));
  }
  wake_.notify_one();
}

void EngineLoop::Wake() {
  {
    std::lock_guard lock(mutex_);
    if (woken_) return;
    woken_ = true;
  }
  wake_.notify_one();
}

void EngineLoop::Run() {
  // A wait of years overflows some clocks' arithmetic; an hour more or less does no harm.
  constexpr double kLongestWait = 3600;
  std::vector<std::function<void()>> closures;
  double wait = kAgain;
  std::unique_lock lock(mutex_);
  while (true) {
    if (wait > 0) {
      wake_.wait_for(lock, std::chrono::duration<double>(std::min(wait, kLongestWait)),
                     [this] { return !posted_.empty() || woken_ || stopping_; });
    }
    woken_ = false;
    closures.swap(posted_);
    const bool last = stopping_;
    lock.unlock();
    for (std::function<void()>& closure : closures) closure();
    const bool ran = !closures.empty();
    closures.clear();
    if (!last) wait = turn_();
    lock.lock();
    // Closures may have posted others: those run too before the end.
    if (last && !ran && posted_.empty()) return;
  }
}

}  // namespace salamander::worker
