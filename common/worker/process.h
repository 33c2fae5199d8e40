// The main() of both worker programs, behind their flags.
#ifndef SALAMANDER_COMMON_WORKER_PROCESS_H_
#define SALAMANDER_COMMON_WORKER_PROCESS_H_

#include <cstdio>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/log.h"
#include "common/service/process.h"

namespace salamander::worker {

// What made a worker give up; from then on its process ends.
class FatalStatus {
 public:
  // The first one counts. Any thread.
  void Set(const absl::Status& status) {
    {
      std::lock_guard lock(mutex_);
      if (!status_.ok()) return;
      status_ = status;
    }
    service::RequestStop();
  }
  absl::Status Get() const {
    std::lock_guard lock(mutex_);
    return status_;
  }

 private:
  mutable std::mutex mutex_;
  absl::Status status_;
};

// Prints why on stderr; the exit code of a program that cannot go on.
inline int ExitWith(const absl::Status& status) {
  std::fprintf(stderr, "%s\n", status.ToString().c_str());
  return 1;
}

// Starts a worker, serves until a stop signal or until `fatal` is set, drains. Returns the exit code.
template <typename Worker>
int ServeUntilStopped(const std::function<absl::StatusOr<std::unique_ptr<Worker>>()>& start, const FatalStatus& fatal,
                      double grace_seconds) {
  absl::StatusOr<std::unique_ptr<Worker>> worker = start();
  if (!worker.ok()) return ExitWith(worker.status());
  service::PrintAddresses((*worker)->address(), (*worker)->metrics_address());
  service::WaitForStopSignal();
  if (absl::Status status = fatal.Get(); !status.ok()) return ExitWith(status);
  Log(LogLevel::kInfo, "stopping: draining");
  (*worker)->Drain(grace_seconds);
  worker->reset();
  Log(LogLevel::kInfo, "stopped");
  return 0;
}

}  // namespace salamander::worker

#endif  // SALAMANDER_COMMON_WORKER_PROCESS_H_
