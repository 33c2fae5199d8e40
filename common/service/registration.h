// A worker's side of Cluster.Register: dials every router, says hello, beats, and reports the peers it is told of.
//
// A router is an address. Names are looked up every `resolve_seconds`, and each address behind one is a router of its
// own, so one name of a headless Kubernetes service stands for all replicas. An address that its name no longer has is
// not dialed again; while its stream lives it stays.
#ifndef SALAMANDER_COMMON_SERVICE_REGISTRATION_H_
#define SALAMANDER_COMMON_SERVICE_REGISTRATION_H_

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/service/channel.h"
#include "common/service/resolve.h"
#include "salamander/v1/cluster.pb.h"

namespace salamander::service {

struct RegistrationOptions {
  std::vector<std::string> routers;  // host:port each; not two that lead to one router
  ChannelSecurity security;          // how they are dialed
  v1::WorkerHello hello;
  // The three run on the registration's own thread, one at a time; none may destroy the registration.
  // Asked once per beat.
  std::function<v1::Heartbeat()> heartbeat;
  // The union of what all routers now connected said, whenever it changes. Empty when none is.
  std::function<void(const v1::Peers&)> on_peers;
  // A router refused the worker for good (fingerprint, version, name, cluster token): the process should end with this.
  // Called once, with the first refusal.
  std::function<void(absl::Status)> on_refused;
  // Before the second attempt; doubles up to 10 s, and starts again after a success.
  double retry_seconds = 1;
  double resolve_seconds = 5;  // ten times as often while a name has never been found
  // On a thread of its own; may block.
  std::function<absl::StatusOr<std::vector<std::string>>(const std::string& router)> resolve = ResolveAll;
};

// Reconnects for ever, with back-off, until destroyed (which ends the streams, so routers know at once, and waits for a
// look-up under way).
class Registration {
 public:
  explicit Registration(RegistrationOptions options);
  ~Registration();
  // Sends a heartbeat now, not at the next beat: readiness or drain changed. Any thread; does not wait.
  void Beat();

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;
};

}  // namespace salamander::service

#endif  // SALAMANDER_COMMON_SERVICE_REGISTRATION_H_
