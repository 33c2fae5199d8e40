#include "kernels/cpu/fork_join.h"

namespace salamander::kernels {

ForkJoin::ForkJoin(int threads) {
  for (int i = 1; i < threads; ++i) workers_.emplace_back([this, i] { WorkerLoop(i); });
}

ForkJoin::~ForkJoin() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void ForkJoin::Claim(Job& job, int thread) {
  // Relaxed: what tasks read was written before the job was posted under the mutex, what they write is read after the
  // helpers have left under it.
  for (int64_t task; (task = job.next.fetch_add(1, std::memory_order_relaxed)) < job.tasks;) job.work(task, thread);
}

void ForkJoin::Run(int64_t tasks, absl::FunctionRef<void(int64_t, int)> work) {
  if (tasks <= 1 || workers_.empty()) {
    for (int64_t task = 0; task < tasks; ++task) work(task, 0);
    return;
  }
  Job job{work, tasks};
  {
    std::lock_guard lock(mutex_);
    job_ = &job;
    ++started_;
  }
  if (tasks == 2) {
    wake_.notify_one();
  } else {
    wake_.notify_all();
  }
  Claim(job, 0);
  std::unique_lock lock(mutex_);
  job_ = nullptr;  // who has not woken by now is not needed
  done_.wait(lock, [&] { return job.helpers == 0; });
}

void ForkJoin::WorkerLoop(int thread) {
  uint64_t seen = 0;
  std::unique_lock lock(mutex_);
  while (true) {
    wake_.wait(lock, [&] { return stopping_ || (job_ != nullptr && started_ != seen); });
    if (stopping_) return;
    seen = started_;
    Job& job = *job_;
    ++job.helpers;
    lock.unlock();
    Claim(job, thread);
    lock.lock();
    if (--job.helpers == 0) done_.notify_one();
  }
}

}  // namespace salamander::kernels
