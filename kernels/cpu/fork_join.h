// Shares the tasks of one operation among a few threads, the caller among them.
//
// Workers sleep when there is nothing to do; nobody spins, for other processes want the cores. Tasks are claimed one by
// one, so a thread that the system holds up delays one task. Which thread runs a task must not matter to its result:
// that is how results are independent of the number of threads.
#ifndef SALAMANDER_KERNELS_CPU_FORK_JOIN_H_
#define SALAMANDER_KERNELS_CPU_FORK_JOIN_H_

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

#include "absl/functional/function_ref.h"

namespace salamander::kernels {

class ForkJoin {
 public:
  // Starts threads - 1 workers.
  explicit ForkJoin(int threads);
  ~ForkJoin();
  ForkJoin(const ForkJoin&) = delete;
  ForkJoin& operator=(const ForkJoin&) = delete;

  int threads() const { return static_cast<int>(workers_.size()) + 1; }

  // Runs work(task, thread) for every task in [0, tasks), thread in [0, threads()), and returns when all have run.
  // One caller at a time. A single task runs on the caller without waking anybody.
  void Run(int64_t tasks, absl::FunctionRef<void(int64_t task, int thread)> work);

 private:
  struct Job {
    absl::FunctionRef<void(int64_t, int)> work;
    int64_t tasks;
    std::atomic<int64_t> next{0};
    int helpers = 0;  // workers inside; guarded by mutex_
  };
  void WorkerLoop(int thread);
  static void Claim(Job& job, int thread);

  std::mutex mutex_;
  std::condition_variable wake_, done_;
  Job* job_ = nullptr;     // guarded by mutex_; null between jobs, so that a late worker finds nothing
  uint64_t started_ = 0;   // jobs so far; guarded by mutex_
  bool stopping_ = false;  // guarded by mutex_
  std::vector<std::thread> workers_;
};

}  // namespace salamander::kernels

#endif  // SALAMANDER_KERNELS_CPU_FORK_JOIN_H_
