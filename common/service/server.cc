#include "common/service/server.h"

#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/impl/server_builder_option.h>
#include <grpcpp/impl/server_builder_plugin.h>
#include <grpcpp/impl/server_initializer.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>
#include <prometheus/exposer.h>

#include <chrono>
#include <exception>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/log.h"
#include "common/base/status_macros.h"

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

absl::Status CheckAddress(const std::string& field, const std::string& address) {
  if (const size_t colon = address.rfind(':'); colon != std::string::npos && colon > 0 && colon + 1 < address.size()) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrCat(field, " must be host:port, got \"", address, "\""));
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

class ServerImpl final : public Server {
 public:
  ~ServerImpl() override { Shutdown(0); }

  absl::Status Start(const ServerOptions& options, Metrics* metrics, const std::vector<grpc::Service*>& services) {
    RETURN_IF_ERROR(CheckAddress("listen", options.listen));
    grpc::EnableDefaultHealthCheckService(true);
    grpc::reflection::InitProtoReflectionServerBuilderPlugin();
    grpc::ServerBuilder builder;
    ConfigureServer(builder);
    builder.SetOption(std::make_unique<NameRecorderOption>(&service_names_));
    int port = 0;
    builder.AddListeningPort(options.listen, grpc::InsecureServerCredentials(), &port);
    for (grpc::Service* service : services) builder.RegisterService(service);
    server_ = builder.BuildAndStart();
    if (server_ == nullptr || port == 0) {
      return absl::UnavailableError(absl::StrCat("cannot listen on ", options.listen, ": address in use or not ours"));
    }
    address_ = WithPort(options.listen, port);
    SetServing(false);

    if (options.metrics_listen.empty()) return absl::OkStatus();
    RETURN_IF_ERROR(CheckAddress("metrics_listen", options.metrics_listen));
    ASSIGN_OR_RETURN(exposer_, StartExposer(options.metrics_listen, metrics));
    metrics_address_ = WithPort(options.metrics_listen, exposer_->GetListeningPorts().at(0));
    return absl::OkStatus();
  }

  std::string address() const override { return address_; }
  std::string metrics_address() const override { return metrics_address_; }

  void SetServing(bool serving) override {
    grpc::HealthCheckServiceInterface* health = server_->GetHealthCheckService();
    health->SetServingStatus("", serving);
    for (const std::string& name : service_names_) health->SetServingStatus(name, serving);
  }

  void SetServing(const std::string& name, bool serving) override {
    server_->GetHealthCheckService()->SetServingStatus(name, serving);
  }

  void Shutdown(double grace_seconds) override {
    if (server_ == nullptr) return;
    server_->GetHealthCheckService()->Shutdown();
    server_->Shutdown(std::chrono::system_clock::now() + std::chrono::microseconds(int64_t(grace_seconds * 1e6)));
    server_->Wait();
  }

 private:
  std::vector<std::string> service_names_;
  std::unique_ptr<grpc::Server> server_;
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
