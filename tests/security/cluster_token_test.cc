// A certificate is not enough to be a member: routers and workers want the cluster's token too.
#include <gmock/gmock.h>
#include <grpcpp/client_context.h>
#include <gtest/gtest.h>

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/service/channel.h"
#include "common/service/grpc_status.h"
#include "tests/common/service/raw_client.h"
#include "tests/security/secured_cluster.h"

namespace salamander {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

class ClusterTokenTest : public testing::SecuredClusterTest {
 protected:
  void SetUp() override { StartCluster(); }

  // Every method that a worker has, called with this token.
  template <typename Stub>
  std::vector<absl::Status> CallAll(Stub& stub) {
    const auto with_deadline = [](grpc::ClientContext& context) {
      context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(10));
    };
    std::vector<absl::Status> statuses;
    grpc::ClientContext contexts[3];
    for (grpc::ClientContext& context : contexts) with_deadline(context);
    v1::ReserveResponse reserved;
    statuses.push_back(service::FromGrpc(stub.Reserve(&contexts[0], v1::ReserveRequest(), &reserved)));
    v1::ReleaseResponse released;
    statuses.push_back(service::FromGrpc(stub.Release(&contexts[1], v1::ReleaseRequest(), &released)));
    auto stream = Open(stub, &contexts[2]);
    stream->WritesDone();
    statuses.push_back(service::FromGrpc(stream->Finish()));
    return statuses;
  }
  static auto Open(v1::PrefillWorker::Stub& stub, grpc::ClientContext* context) { return stub.Prefill(context); }
  static auto Open(v1::DecodeWorker::Stub& stub, grpc::ClientContext* context) { return stub.Decode(context); }

  std::vector<absl::Status> CallWorker(const std::string& name, const std::string& token) {
    const auto channel =
        service::MakeChannel(cluster_->process(name).address, {.tls = member_, .cluster_token = token});
    if (name[0] == 'p') return CallAll(*v1::PrefillWorker::NewStub(channel));
    return CallAll(*v1::DecodeWorker::NewStub(channel));
  }
  absl::Status Register(const std::string& token) {
    const auto channel = service::MakeChannel(cluster_->router_address(), {.tls = member_, .cluster_token = token});
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(10));
    auto stream = v1::Cluster::NewStub(channel)->Register(&context);
    v1::WorkerMessage hello;
    *hello.mutable_hello() = v1::WorkerHello();
    stream->Write(hello);
    stream->WritesDone();
    return service::FromGrpc(stream->Finish());
  }
  double Refused(const std::string& name) {
    const std::string scrape = testing::HttpGet(cluster_->process(name).metrics_address, "/metrics").value();
    return testing::MetricValue(scrape, "salamander_process_unauthenticated_calls_total").value_or(-1);
  }
};

TEST_F(ClusterTokenTest, WorkersServeMembersOnly) {
  const std::pair<std::string, std::string> cases[] = {
      {"", "no token"},
      {"the token of another cluster    ", "the token is not the cluster's"},
      {std::string(kToken) + "x", "the token is not the cluster's"},
  };
  for (const char* worker : {"prefill-0", "decode-0"}) {
    EXPECT_EQ(Refused(worker), 0);
    for (const auto& [token, why] : cases) {
      for (const absl::Status& status : CallWorker(worker, token)) {
        EXPECT_EQ(status.code(), absl::StatusCode::kUnauthenticated) << status;
        EXPECT_THAT(std::string(status.message()), HasSubstr(why));
      }
    }
    EXPECT_EQ(Refused(worker), 9);
    EXPECT_THAT(testing::ReadLog(*cluster_->process(worker).child),
                AllOf(HasSubstr("Reserve from ipv4:127.0.0.1:"), HasSubstr("refused: no cluster token"),
                      Not(HasSubstr(kToken))));
    // With the token the same calls get past the gate.
    for (const absl::Status& status : CallWorker(worker, kToken)) {
      EXPECT_NE(status.code(), absl::StatusCode::kUnauthenticated) << status;
    }
  }
  ExpectServes();
}

TEST_F(ClusterTokenTest, RoutersTakeMembersOnly) {
  EXPECT_EQ(Register("").code(), absl::StatusCode::kUnauthenticated);
  EXPECT_EQ(Register("the token of another cluster    ").code(), absl::StatusCode::kUnauthenticated);
  EXPECT_EQ(Register(kToken).code(), absl::StatusCode::kInvalidArgument);  // past the gate; the hello is empty
  EXPECT_EQ(Refused("router-0"), 2);

  // A worker ends with what is wrong, as it does with another model.
  const std::string other = folder_.Write("other", "the token of another cluster");
  const std::vector<std::string> cases[] = {{"--cluster_token_file="}, {"--cluster_token_file=" + other}};
  for (const std::vector<std::string>& flags : cases) {
    auto worker = cluster_->StartStranger("prefill", "prefill-9", golden_.folder, flags).value();
    const absl::StatusOr<int> code = worker->WaitForExit(30);
    ASSERT_TRUE(code.ok()) << code.status();
    EXPECT_EQ(*code, 1);
    EXPECT_THAT(worker->LastWords(), HasSubstr("UNAUTHENTICATED: Register is for members of the cluster"));
  }
  ExpectServes();
}

}  // namespace
}  // namespace salamander
