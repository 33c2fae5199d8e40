#include "common/worker/process.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <thread>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/status_macros.h"
#include "common/service/flags.h"
#include "common/service/process.h"

namespace salamander::worker {
namespace {

// What a process that gave up may take to end.
constexpr double kEndSeconds = 10;

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

void PrintError(const absl::Status& status) { std::fprintf(stderr, "%s\n", status.ToString().c_str()); }

// A lost device, or a peer that waits for this worker, may hold up its orderly end.
void EndWithin(double seconds, const absl::Status& status) {
  std::thread([seconds, status] {
    std::this_thread::sleep_for(std::chrono::duration<double>(seconds));
    PrintError(status);
    std::_Exit(1);
  }).detach();
}

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
  if (absl::Status status = fatal.Get(); !status.ok()) {
    Log(LogLevel::kError, absl::StrCat("cannot go on: ", status.ToString()));
    EndWithin(kEndSeconds, status);
    for (auto worker = workers.rbegin(); worker != workers.rend(); ++worker) (*worker)->Abort(status);
    while (!workers.empty()) workers.pop_back();
    return status;
  }
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
  PrintError(status);
  return 1;
}

}  // namespace salamander::worker
