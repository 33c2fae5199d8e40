// A worker's side of Cluster.Register: dials every router, says hello, beats, and reports the peers it is told of.
#ifndef SALAMANDER_COMMON_SERVICE_REGISTRATION_H_
#define SALAMANDER_COMMON_SERVICE_REGISTRATION_H_

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "salamander/v1/cluster.pb.h"

namespace salamander::service {

struct RegistrationOptions {
  std::vector<std::string> routers;  // host:port each
  v1::WorkerHello hello;
  // Asked once per beat; any thread.
  std::function<v1::Heartbeat()> heartbeat;
  // The union of what all routers said, whenever it changes; any thread, one call at a time.
  std::function<void(const v1::Peers&)> on_peers;
  // A router refused the worker for good (fingerprint, version, name): the process should end with this.
  std::function<void(absl::Status)> on_refused;
  double retry_seconds = 1;
};

// Reconnects for ever, with back-off, until destroyed (which ends the streams, so routers know at once).
class Registration {
 public:
  explicit Registration(RegistrationOptions options);
  ~Registration();
  // Sends a heartbeat now, not at the next beat: readiness or drain changed.
  void Beat();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace salamander::service

#endif  // SALAMANDER_COMMON_SERVICE_REGISTRATION_H_
