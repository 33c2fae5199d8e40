// The router program as a child process, for measuring it alone.
#ifndef SALAMANDER_TESTS_ROUTER_ROUTER_PROCESS_H_
#define SALAMANDER_TESTS_ROUTER_ROUTER_PROCESS_H_

#include <sys/types.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace salamander::router {

class RouterProcess {
 public:
  // Starts `program` and waits until it serves.
  static absl::StatusOr<std::unique_ptr<RouterProcess>> Start(const std::string& program,
                                                              const std::vector<std::string>& args);
  // Ends it and waits for that.
  ~RouterProcess();

  const std::string& address() const { return address_; }
  // Processor time it has used so far, user and system.
  double CpuSeconds() const;

 private:
  RouterProcess() = default;
  pid_t pid_ = -1;
  std::string address_;
};

}  // namespace salamander::router

#endif  // SALAMANDER_TESTS_ROUTER_ROUTER_PROCESS_H_
