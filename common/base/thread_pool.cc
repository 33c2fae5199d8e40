#include "common/base/thread_pool.h"

#include <pthread.h>

#include <utility>

namespace salamander {

void SetThreadName(const std::string& name) { pthread_setname_np(pthread_self(), name.substr(0, 15).c_str()); }

ThreadPool::ThreadPool(std::string name, int threads) {
  for (int i = 0; i < threads; ++i) {
    threads_.emplace_back([this, name] {
      SetThreadName(name);
      Run();
    });
  }
}

ThreadPool::~ThreadPool() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void ThreadPool::Post(std::function<void()> closure) {
  {
    std::lock_guard lock(mutex_);
    queue_.push_back(std::move(closure));
  }
  wake_.notify_one();
}

void ThreadPool::Run() {
  std::unique_lock lock(mutex_);
  while (true) {
    // A running closure may still post, so a stopping pool ends only when nothing runs.
    wake_.wait(lock, [this] { return !queue_.empty() || (stopping_ && running_ == 0); });
    if (queue_.empty()) return;
    std::function<void()> closure = std::move(queue_.front());
    queue_.pop_front();
    ++running_;
    lock.unlock();
    closure();
    closure = nullptr;
    lock.lock();
    --running_;
    if (stopping_ && running_ == 0 && queue_.empty()) wake_.notify_all();
  }
}

struct SerialExecutor::Core {
  ThreadPool* pool;
  std::mutex mutex;
  std::deque<std::function<void()>> queue;
  bool draining = false;
};

SerialExecutor::SerialExecutor(ThreadPool* pool) : core_(std::make_shared<Core>()) { core_->pool = pool; }

void SerialExecutor::Post(std::function<void()> closure) {
  {
    std::lock_guard lock(core_->mutex);
    core_->queue.push_back(std::move(closure));
    if (core_->draining) return;
    core_->draining = true;
  }
  core_->pool->Post([core = core_] { Drain(core); });
}

void SerialExecutor::Run(std::function<void()> closure) {
  const std::shared_ptr<Core> core = core_;  // The closure may destroy this object.
  {
    std::lock_guard lock(core->mutex);
    if (core->draining) {
      core->queue.push_back(std::move(closure));
      return;
    }
    core->draining = true;
  }
  closure();
  closure = nullptr;
  Drain(core);
}

void SerialExecutor::Drain(const std::shared_ptr<Core>& core) {
  // A few at a time, so that one busy executor does not hold a pool thread for ever.
  for (int i = 0; i < 16; ++i) {
    std::function<void()> closure;
    {
      std::lock_guard lock(core->mutex);
      if (core->queue.empty()) {
        core->draining = false;
        return;
      }
      closure = std::move(core->queue.front());
      core->queue.pop_front();
    }
    closure();
  }
  core->pool->Post([core] { Drain(core); });
}

}  // namespace salamander
