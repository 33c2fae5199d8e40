#include "common/service/server.h"

#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/generic/async_generic_service.h>
#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/impl/server_builder_option.h>
#include <grpcpp/impl/server_builder_plugin.h>
#include <grpcpp/impl/server_initializer.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>
#include <prometheus/exposer.h>

#include <chrono>
#include <exception>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/log.h"
#include "common/base/status_macros.h"
#include "common/service/address.h"
#include "common/service/certificate.h"
#include "common/service/tls.h"

namespace salamander::service {
namespace {

// gRPC's health service answers NOT_FOUND for services nobody named to it, and grpc::Service keeps its name to itself:
// only a plugin of the builder sees the list.
class NameRecorder final : public grpc::ServerBuilderPlugin {
 public:
  explicit NameRecorder(std::vector<std::string>* names) : names_(names) {}
  std::string name() override { return "salamander_service_names"; }
  void InitServer(grpc::ServerInitializer*) override {}
  void Finish(grpc::ServerInitializer* server) override { *names_ = *server->GetServiceList(); }
  void ChangeArguments(const std::string&, void*) override {}

 private:
  std::vector<std::string>* names_;
};

class NameRecorderOption final : public grpc::ServerBuilderOption {
 public:
  explicit NameRecorderOption(std::vector<std::string>* names) : names_(names) {}
  void UpdateArguments(grpc::ChannelArguments*) override {}
  void UpdatePlugins(std::vector<std::unique_ptr<grpc::ServerBuilderPlugin>>* plugins) override {
    plugins->push_back(std::make_unique<NameRecorder>(names_));
  }

 private:
  std::vector<std::string>* names_;
};

// "host:port" with another port.
std::string WithPort(const std::string& address, int port) {
  return absl::StrCat(address.substr(0, address.rfind(':')), ":", port);
}

// prometheus-cpp reports failures by exception; they end here. A client that sends nothing holds one of the threads for
// the time of a request.
absl::StatusOr<std::unique_ptr<prometheus::Exposer>> StartExposer(const std::string& address, Metrics* metrics) {
  try {
    auto exposer = std::make_unique<prometheus::Exposer>(
        std::vector<std::string>{"listening_ports", address, "num_threads", "4", "request_timeout_ms", "2000"});
    exposer->RegisterCollectable(metrics->collectable());
    return exposer;
  } catch (const std::exception& error) {
    return absl::UnavailableError(absl::StrCat("cannot serve metrics on ", address, ": ", error.what()));
  }
}

void WatchCertificate(const std::string& path, Metrics* metrics) {
  metrics->GaugeFrom("salamander_process_certificate_expiry_timestamp_seconds",
                     "When this process's TLS certificate ends, in seconds since 1970; 0 if its file cannot be read.",
                     {}, [path] {
                       const absl::StatusOr<CertificateInfo> info = ReadCertificate(path);
                       return info.ok() ? absl::ToDoubleSeconds(info->not_after - absl::UnixEpoch()) : 0;
                     });
}

// Without reflection, which otherwise comes with every server of the process.
class NoPluginsOption final : public grpc::ServerBuilderOption {
 public:
  void UpdateArguments(grpc::ChannelArguments*) override {}
  void UpdatePlugins(std::vector<std::unique_ptr<grpc::ServerBuilderPlugin>>* plugins) override { plugins->clear(); }
};

// A gRPC server without any service is none; this one answers UNIMPLEMENTED to all calls but those to the health
// service that gRPC adds.
class HealthServer {
 public:
  absl::Status Start(const std::string& listen) {
    RETURN_IF_ERROR(CheckAddress("health_listen", listen));
    grpc::ServerBuilder builder;
    ConfigureServer(builder);

    builder.SetOption(std::make_unique<NoPluginsOption>());
    builder.RegisterCallbackGenericService(&nothing_);
    int port = 0;
    builder.AddListeningPort(listen, grpc::InsecureServerCredentials(), &port);
    server_ = builder.BuildAndStart();
    if (server_ == nullptr || port == 0) {
      return absl::UnavailableError(absl::StrCat("cannot listen on ", listen, ": address in use or not ours"));
    }
    address_ = WithPort(listen, port);
    return absl::OkStatus();
  }
  const std::string& address() const { return address_; }
  grpc::HealthCheckServiceInterface* service() { return server_->GetHealthCheckService(); }
  void Shutdown() {
    service()->Shutdown();
    server_->Shutdown(std::chrono::system_clock::now());
    server_->Wait();
  }

 private:
  grpc::CallbackGenericService nothing_;
  std::unique_ptr<grpc::Server> server_;
  std::string address_;
};

class ServerImpl final : public Server {
 public:
  ~ServerImpl() override { Shutdown(0); }

  absl::Status Start(const ServerOptions& options, Metrics* metrics, const std::vector<grpc::Service*>& services) {
    RETURN_IF_ERROR(CheckAddress("listen", options.listen));
    RETURN_IF_ERROR(CheckExposure("--listen", options.listen, options.security));
    const TlsFiles& tls = options.security.tls;
    RETURN_IF_ERROR(CheckServerTlsFiles(tls));
    watch_ = WatchCertificates(tls);
    grpc::EnableDefaultHealthCheckService(true);
    grpc::reflection::InitProtoReflectionServerBuilderPlugin();
    grpc::ServerBuilder builder;
    ConfigureServer(builder);
    builder.SetOption(std::make_unique<NameRecorderOption>(&service_names_));
    int port = 0;
    builder.AddListeningPort(options.listen, ServerCredentials(tls), &port);
    for (grpc::Service* service : services) builder.RegisterService(service);
    server_ = builder.BuildAndStart();
    if (server_ == nullptr || port == 0) {
      return absl::UnavailableError(absl::StrCat("cannot listen on ", options.listen, ": address in use or not ours"));
    }
    address_ = WithPort(options.listen, port);
    if (!options.health_listen.empty()) {
      health_.emplace();
      if (absl::Status started = health_->Start(options.health_listen); !started.ok()) {
        health_.reset();
        return started;
      }
    }
    SetServing(false);
    if (!tls.empty()) WatchCertificate(tls.cert, metrics);

    if (options.metrics_listen.empty()) return absl::OkStatus();
    RETURN_IF_ERROR(CheckAddress("metrics_listen", options.metrics_listen));
    ASSIGN_OR_RETURN(exposer_, StartExposer(options.metrics_listen, metrics));
    metrics_address_ = WithPort(options.metrics_listen, exposer_->GetListeningPorts().at(0));
    return absl::OkStatus();
  }

  std::string address() const override { return address_; }
  std::string metrics_address() const override { return metrics_address_; }
  std::string health_address() const override { return health_.has_value() ? health_->address() : ""; }

  void SetServing(bool serving) override {
    SetServing(serving, server_->GetHealthCheckService());
    if (health_.has_value()) SetServing(serving, health_->service());
  }

  void SetServing(const std::string& name, bool serving) override {
    server_->GetHealthCheckService()->SetServingStatus(name, serving);
  }

  void Shutdown(double grace_seconds) override {
    if (server_ == nullptr) return;
    server_->GetHealthCheckService()->Shutdown();
    server_->Shutdown(std::chrono::system_clock::now() + std::chrono::microseconds(int64_t(grace_seconds * 1e6)));
    server_->Wait();
    if (health_.has_value()) health_->Shutdown();
  }

 private:
  void SetServing(bool serving, grpc::HealthCheckServiceInterface* health) {
    health->SetServingStatus("", serving);
    for (const std::string& name : service_names_) health->SetServingStatus(name, serving);
  }

  std::vector<std::string> service_names_;
  std::shared_ptr<CertificateWatch> watch_;
  std::unique_ptr<grpc::Server> server_;
  std::optional<HealthServer> health_;
  std::unique_ptr<prometheus::Exposer> exposer_;
  std::string address_, metrics_address_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Server>> Server::Start(const ServerOptions& options, Metrics* metrics,
                                                      const std::vector<grpc::Service*>& services) {
  auto server = std::make_unique<ServerImpl>();
  RETURN_IF_ERROR(server->Start(options, metrics, services));
  return std::unique_ptr<Server>(std::move(server));
}

}  // namespace salamander::service
