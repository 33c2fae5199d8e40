// Registration over gRPC: who may join, who is told of whom, and how a worker is found to be gone.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/common/service/probe.h"
#include "tests/router/router_fixture.h"

namespace salamander::router {
namespace {

using ::testing::HasSubstr;
using ::testing::UnorderedElementsAre;

// A worker's stream, message by message.
class RawRegistration {
 public:
  explicit RawRegistration(v1::Cluster::Stub* stub) {
    context_.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(20));
    stream_ = stub->Register(&context_);
  }
  ~RawRegistration() { context_.TryCancel(); }
  void Say(const v1::WorkerHello& hello) {
    v1::WorkerMessage message;
    *message.mutable_hello() = hello;
    stream_->Write(message);
  }
  void Beat() {
    v1::WorkerMessage message;
    message.mutable_heartbeat()->set_ready(true);
    stream_->Write(message);
  }
  // The next message; false at the end.
  bool Read(v1::RouterMessage* message) { return stream_->Read(message); }
  grpc::Status End() {
    v1::RouterMessage ignored;
    while (stream_->Read(&ignored)) {
    }
    return stream_->Finish();
  }

 private:
  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReaderWriter<v1::WorkerMessage, v1::RouterMessage>> stream_;
};

using MembershipTest = RouterTest;

TEST_F(MembershipTest, GreetsAndTellsPeersAsTheyComeAndGo) {
  StartRouter();
  FakePrefillWorker p0("p0");  // for its hello
  RawRegistration registration(cluster_.get());
  registration.Say(p0.hello());
  v1::RouterMessage message;
  ASSERT_TRUE(registration.Read(&message));
  EXPECT_DOUBLE_EQ(message.welcome().heartbeat_seconds(), 1);
  EXPECT_FALSE(message.welcome().router_version().empty());
  ASSERT_TRUE(registration.Read(&message));
  EXPECT_EQ(message.peers().peers_size(), 0);

  auto d0 = std::make_unique<FakeDecodeWorker>("d0");
  d0->Register(router_->address());
  registration.Beat();
  ASSERT_TRUE(registration.Read(&message));
  ASSERT_EQ(message.peers().peers_size(), 1);
  EXPECT_EQ(message.peers().peers(0).name(), "d0");
  EXPECT_EQ(message.peers().peers(0).transport_address(), "at d0");
  EXPECT_EQ(message.peers().peers(0).role(), v1::WORKER_ROLE_DECODE);
  registration.Beat();
  d0.reset();
  ASSERT_TRUE(registration.Read(&message));
  EXPECT_EQ(message.peers().peers_size(), 0);
}

TEST_F(MembershipTest, ASilentWorkerIsGoneAndHearsIt) {
  StartRouter();
  FakePrefillWorker p0("p0");
  RawRegistration registration(cluster_.get());
  registration.Say(p0.hello());
  registration.Beat();
  EXPECT_TRUE(WaitForStatus([](const v1::GetStatusResponse& status) { return status.workers_size() == 1; }));
  const grpc::Status end = registration.End();
  EXPECT_EQ(end.error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  EXPECT_THAT(end.error_message(), HasSubstr("no heartbeat for"));
  EXPECT_EQ(Status().workers_size(), 0);
}

// What a Kubernetes probe asks, so that no client is sent to a router that workers have not found yet.
TEST_F(MembershipTest, HealthTellsWhetherThereAreWorkers) {
  StartRouter();
  const auto serving = [this](const std::string& name) {
    return testing::IsServing(router_->address(), name).value_or(false);
  };
  const auto soon = [&](bool wanted) {
    return WaitForStatus([&](const v1::GetStatusResponse&) { return serving("salamander.workers") == wanted; });
  };
  EXPECT_FALSE(serving("salamander.workers"));
  AddPrefill("p0");
  EXPECT_FALSE(serving("salamander.workers"));
  AddDecode("d0");
  EXPECT_TRUE(soon(true));
  decode_[0]->Unregister();
  EXPECT_TRUE(soon(false));
  decode_[0]->Register(router_->address());
  EXPECT_TRUE(soon(true));
  prefill_[0]->Unregister();
  EXPECT_TRUE(soon(false));
  EXPECT_TRUE(serving(""));
}

TEST_F(MembershipTest, RefusesByName) {
  StartRouter();
  AddDecode("d0");
  FakePrefillWorker stranger("p0");
  stranger.hello().set_model_fingerprint("another");
  RawRegistration wrong_model(cluster_.get());
  wrong_model.Say(stranger.hello());
  grpc::Status end = wrong_model.End();
  EXPECT_EQ(end.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_THAT(end.error_message(), HasSubstr("fingerprint another, but the router has fingerprint"));

  FakeDecodeWorker twin("d0");
  RawRegistration same_name(cluster_.get());
  same_name.Say(twin.hello());
  end = same_name.End();
  EXPECT_EQ(end.error_code(), grpc::StatusCode::ALREADY_EXISTS);

  RawRegistration no_hello(cluster_.get());
  no_hello.Beat();
  EXPECT_EQ(no_hello.End().error_code(), grpc::StatusCode::INVALID_ARGUMENT);

  RawRegistration two_hellos(cluster_.get());
  FakePrefillWorker p1("p1");
  two_hellos.Say(p1.hello());
  two_hellos.Say(p1.hello());
  EXPECT_EQ(two_hellos.End().error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_TRUE(WaitForStatus([](const v1::GetStatusResponse& status) { return status.workers_size() == 1; }));
}

TEST_F(MembershipTest, StatusShowsWorkersAndQueue) {
  StartRouter();
  auto& p0 = AddPrefill("p0");
  AddDecode("d0", {.hang_at = Stage::kAfterOne});
  grpc::ClientContext context;
  auto reader = stub_->Generate(&context, Tokens(10));
  EXPECT_TRUE(decode_[0]->WaitForStreams(1));
  const v1::GetStatusResponse status = Status();
  EXPECT_TRUE(status.ready());
  EXPECT_EQ(status.running_requests(), 1);
  EXPECT_EQ(status.queue_limit(), RouterOptions().queue_limit);
  EXPECT_EQ(status.model().name(), "fake");
  ASSERT_EQ(status.workers_size(), 2);
  EXPECT_EQ(status.workers(0).name(), "d0");
  EXPECT_EQ(status.workers(0).running_requests(), 1);
  EXPECT_EQ(status.workers(1).role(), v1::WORKER_ROLE_PREFILL);
  EXPECT_EQ(status.workers(1).instance_id(), p0.hello().instance_id());
  EXPECT_EQ(status.workers(1).grpc_address(), p0.address());
  EXPECT_TRUE(status.workers(1).last().ready());
  context.TryCancel();
  Collect(&context, reader.get());
  ExpectNothingHeld();
}

}  // namespace
}  // namespace salamander::router
