// A router that does what a test scripts: Inference and Cluster over real gRPC, in the test's process.
#ifndef SALAMANDER_TESTS_CLIENTS_FAKE_ROUTER_H_
#define SALAMANDER_TESTS_CLIENTS_FAKE_ROUTER_H_

#include <grpcpp/grpcpp.h>

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <string>

#include "salamander/v1/cluster.grpc.pb.h"
#include "salamander/v1/inference.grpc.pb.h"

namespace salamander::testing {

class FakeRouter : public v1::Inference::Service, public v1::Cluster::Service {
 public:
  using Writer = grpc::ServerWriter<v1::GenerateResponse>;
  using Script = std::function<grpc::Status(grpc::ServerContext&, const v1::GenerateRequest&, Writer&)>;

  FakeRouter();
  ~FakeRouter() override;
  const std::string& address() const { return address_; }

  // What Generate does; by default it writes the sample events and ends well.
  void set_script(Script script);
  void set_status(const v1::GetStatusResponse& status);
  void set_tokenize_status(const grpc::Status& status);

  v1::GenerateRequest last_request() const;

  grpc::Status Generate(grpc::ServerContext* context, const v1::GenerateRequest* request, Writer* writer) override;
  grpc::Status Tokenize(grpc::ServerContext* context, const v1::TokenizeRequest* request,
                        v1::TokenizeResponse* response) override;
  grpc::Status GetModel(grpc::ServerContext* context, const v1::GetModelRequest* request,
                        v1::GetModelResponse* response) override;
  grpc::Status GetStatus(grpc::ServerContext* context, const v1::GetStatusRequest* request,
                         v1::GetStatusResponse* response) override;

 private:
  mutable std::mutex mutex_;
  Script script_;
  v1::GetStatusResponse status_;
  grpc::Status tokenize_status_;
  v1::GenerateRequest last_request_;
  std::string address_;
  std::unique_ptr<grpc::Server> server_;
};

// Accepted; progress of 1,000 and 2,000 of 2,000 tokens; "Hello" and " there" as tokens 11 and 12 with
// log-probabilities; Finished with two spans.
void WriteSampleEvents(FakeRouter::Writer& writer);

// A status with one prefill worker, one decode worker and the link between them.
v1::GetStatusResponse SampleStatus();

}  // namespace salamander::testing

#endif  // SALAMANDER_TESTS_CLIENTS_FAKE_ROUTER_H_
