// What every process serves: its own gRPC services, grpc.health.v1, server reflection, and /metrics over HTTP.
#ifndef SALAMANDER_COMMON_SERVICE_SERVER_H_
#define SALAMANDER_COMMON_SERVICE_SERVER_H_

#include <grpcpp/impl/codegen/service_type.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/service/channel.h"
#include "common/service/metrics.h"

namespace salamander::service {

struct ServerOptions {
  // host:port; port 0 picks a free one.
  std::string listen = "127.0.0.1:0";
  // The same for /metrics; empty: none.
  std::string metrics_listen = "127.0.0.1:0";
  // The same, without TLS whatever `security` says, for grpc.health.v1 alone; empty: none. Kubernetes' probes have no
  // certificate to show.
  std::string health_listen;
  Security security;
};

class Server {
 public:
  // `metrics` and `services` (which use the callback API) outlive the server. UNAVAILABLE naming the address if it
  // cannot be bound; INVALID_ARGUMENT if it must not be (CheckExposure) or the certificate files are not right.
  static absl::StatusOr<std::unique_ptr<Server>> Start(const ServerOptions& options, Metrics* metrics,
                                                       const std::vector<grpc::Service*>& services);
  virtual ~Server() = default;

  // host:port with the real port.
  virtual std::string address() const = 0;
  virtual std::string metrics_address() const = 0;
  // Empty if there is none.
  virtual std::string health_address() const = 0;
  // grpc.health.v1, for the whole server and for each service. Starts as false.
  virtual void SetServing(bool serving) = 0;
  // The same for one name only, which need not be a service's: NOT_FOUND until it was first said.
  virtual void SetServing(const std::string& name, bool serving) = 0;
  // No new calls; those running may go on for `grace_seconds`, then they are cancelled. Blocks.
  virtual void Shutdown(double grace_seconds) = 0;
};

}  // namespace salamander::service

#endif  // SALAMANDER_COMMON_SERVICE_SERVER_H_
