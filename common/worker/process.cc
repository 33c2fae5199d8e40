#include "common/worker/process.h"

#include <algorithm>
#include <cstdio>
#include <mutex>
#include <utility>

#include "absl/status/status.h"
#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/status_macros.h"
#include "common/service/flags.h"
#include "common/service/process.h"

namespace salamander::worker {
namespace {

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

absl::Status Run(int argc, char** argv, const Program& program) {
  service::BlockStopSignals();
  RETURN_IF_ERROR(service::ParseFlags(argc, argv, program.usage));
  ASSIGN_OR_RETURN(const double grace_seconds, service::StartProcessFromFlags(program.name));
  ASSIGN_OR_RETURN(service::WorkerOptions options, service::WorkerOptionsFromFlags());
  FatalStatus fatal;
  options.on_fatal = [&fatal](const absl::Status& status) { fatal.Set(status); };
  ASSIGN_OR_RETURN(std::vector<std::unique_ptr<Worker>> workers, program.start(options));
  for (const auto& worker : workers) {
    service::PrintAddresses(worker->address(), worker->metrics_address(), worker->health_address());
  }
  service::WaitForStopSignal();
  RETURN_IF_ERROR(fatal.Get());
  Log(LogLevel::kInfo, "stopping: draining");
  const double end = RealClock().Now() + grace_seconds;
  for (; !workers.empty(); workers.pop_back()) workers.back()->Drain(std::max(0.0, end - RealClock().Now()));
  Log(LogLevel::kInfo, "stopped");
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::vector<std::unique_ptr<Worker>>> OnlyWorker(absl::StatusOr<std::unique_ptr<Worker>> worker) {
  std::vector<std::unique_ptr<Worker>> workers;
  ASSIGN_OR_RETURN(workers.emplace_back(), std::move(worker));
  return workers;
}

int RunProgram(int argc, char** argv, const Program& program) {
  const absl::Status status = Run(argc, argv, program);
  if (status.ok()) return 0;
  std::fprintf(stderr, "%s\n", status.ToString().c_str());
  return 1;
}

}  // namespace salamander::worker
