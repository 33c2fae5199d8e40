// The main() of a worker program.
#ifndef SALAMANDER_COMMON_WORKER_PROCESS_H_
#define SALAMANDER_COMMON_WORKER_PROCESS_H_

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/service/worker_options.h"
#include "common/worker/worker.h"

namespace salamander::worker {

struct Program {
  std::string name;   // "prefill-worker"
  std::string usage;  // the first line of --help
  // Starts the workers, one for each role of the process; the program's own flags are parsed by then. They are drained
  // or aborted, and destroyed, in reverse order.
  std::function<absl::StatusOr<std::vector<std::unique_ptr<Worker>>>(const service::WorkerOptions&)> start;
};

// What `start` returns for one role.
absl::StatusOr<std::vector<std::unique_ptr<Worker>>> OnlyWorker(absl::StatusOr<std::unique_ptr<Worker>> worker);

// Serves until a stop signal, and drains; or until a router refuses a worker for good or its device fails: then it ends
// at once, within seconds in any case. Returns the exit code; why it could not go on is on stderr.
int RunProgram(int argc, char** argv, const Program& program);

}  // namespace salamander::worker

#endif  // SALAMANDER_COMMON_WORKER_PROCESS_H_
