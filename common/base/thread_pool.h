// Fixed threads with one queue, and a serial executor on top of it.
//
// ThreadPool runs closures in any order on its threads. SerialExecutor runs its closures one at a time and in order of
// posting, on a pool: state touched only from one SerialExecutor needs no lock.
#ifndef SALAMANDER_COMMON_BASE_THREAD_POOL_H_
#define SALAMANDER_COMMON_BASE_THREAD_POOL_H_

#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace salamander {

class ThreadPool {
 public:
  // `name` is what the operating system shows, at most 15 characters.
  ThreadPool(std::string name, int threads);
  // Runs what was posted, then joins. Nothing may be posted from outside by then; closures may still post.
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  void Post(std::function<void()> closure);

 private:
  void Run();

  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<std::function<void()>> queue_;
  int running_ = 0;
  bool stopping_ = false;
  std::vector<std::thread> threads_;
};

// Cheap: one per request is fine. Closures posted keep the internals alive, so an executor may be destroyed from one
// of its own closures; those still queued run.
class SerialExecutor {
 public:
  explicit SerialExecutor(ThreadPool* pool);

  void Post(std::function<void()> closure);
  // The same without a change of threads where none is needed: if nothing else of this executor runs or waits, the
  // closure runs before this returns, on the calling thread, and so may a few that are posted meanwhile. Not with a
  // lock held that they take.
  void Run(std::function<void()> closure);

 private:
  struct Core;
  static void Drain(const std::shared_ptr<Core>& core);

  std::shared_ptr<Core> core_;
};

// Names the calling thread for debuggers and top.
void SetThreadName(const std::string& name);

}  // namespace salamander

#endif  // SALAMANDER_COMMON_BASE_THREAD_POOL_H_
