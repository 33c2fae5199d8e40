#include "common/service/server.h"

#include <gmock/gmock.h>
#include <grpcpp/client_context.h>
#include <grpcpp/create_channel.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "common/base/clock.h"
#include "common/service/channel.h"
#include "salamander/v1/inference.grpc.pb.h"
#include "tests/common/service/probe.h"

namespace salamander::service {
namespace {

using ::testing::HasSubstr;
using testing::IsServing;
using testing::ListServices;
using ::testing::StartsWith;

// GetModel answers with the context's view of the request's size; Generate runs until cancelled.
class TestService final : public v1::Inference::CallbackService {
 public:
  std::atomic<int> started = 0;  // Generate calls

  grpc::ServerUnaryReactor* Tokenize(grpc::CallbackServerContext* context, const v1::TokenizeRequest* request,
                                     v1::TokenizeResponse* response) override {
    response->add_ids(static_cast<int32_t>(request->prompt().text().size()));
    grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
    reactor->Finish(grpc::Status::OK);
    return reactor;
  }

  grpc::ServerWriteReactor<v1::GenerateResponse>* Generate(grpc::CallbackServerContext*,
                                                           const v1::GenerateRequest*) override {
    class Endless final : public grpc::ServerWriteReactor<v1::GenerateResponse> {
     public:
      explicit Endless(TestService* service) : service_(service) {
        ++service_->started;
        response_.mutable_accepted()->set_prompt_tokens(1);
        StartWrite(&response_);
      }
      void OnCancel() override { Finish(grpc::Status::CANCELLED); }
      void OnDone() override { delete this; }

     private:
      TestService* const service_;
      v1::GenerateResponse response_;
    };
    return new Endless(this);
  }
};

// An endless call; ends with the object.
class EndlessCall {
 public:
  explicit EndlessCall(v1::Inference::Stub* stub) : reader_(stub->Generate(&context_, {})) {}
  ~EndlessCall() { context_.TryCancel(); }

 private:
  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReader<v1::GenerateResponse>> reader_;
};

class ServerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    // Without metrics: their HTTP server takes two seconds to stop.
    absl::StatusOr<std::unique_ptr<Server>> server = Server::Start({.metrics_listen = ""}, &metrics_, {&service_});
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    stub_ = v1::Inference::NewStub(MakeChannel(server_->address()));
  }

  Metrics metrics_{"tester"};
  TestService service_;
  std::unique_ptr<Server> server_;
  std::unique_ptr<v1::Inference::Stub> stub_;
};

TEST_F(ServerTest, AddressesHaveTheGivenHostAndARealPort) {
  Metrics metrics("other");
  const auto other = Server::Start({.listen = "localhost:0", .metrics_listen = "127.0.0.1:0"}, &metrics, {});
  ASSERT_TRUE(other.ok()) << other.status();
  EXPECT_THAT((*other)->address(), StartsWith("localhost:"));
  EXPECT_THAT((*other)->metrics_address(), StartsWith("127.0.0.1:"));
  for (const std::string& address : {server_->address(), (*other)->address(), (*other)->metrics_address()}) {
    EXPECT_NE(address.substr(address.rfind(':')), ":0");
  }
  EXPECT_EQ(server_->metrics_address(), "");
}

TEST_F(ServerTest, HealthFollowsServing) {
  for (const char* name : {"", "salamander.v1.Inference"}) {
    EXPECT_FALSE(IsServing(server_->address(), name).value()) << name;
    server_->SetServing(true);
    EXPECT_TRUE(IsServing(server_->address(), name).value()) << name;
    server_->SetServing(false);
    EXPECT_FALSE(IsServing(server_->address(), name).value()) << name;
  }
  EXPECT_EQ(IsServing(server_->address(), "no.such.Service").status().code(), absl::StatusCode::kNotFound);
}

TEST_F(ServerTest, HealthOfAFurtherNameIsItsOwn) {
  server_->SetServing("further", true);
  EXPECT_TRUE(IsServing(server_->address(), "further").value());
  EXPECT_FALSE(IsServing(server_->address(), "").value());
  server_->SetServing(true);
  server_->SetServing("further", false);
  EXPECT_FALSE(IsServing(server_->address(), "further").value());
  EXPECT_TRUE(IsServing(server_->address(), "").value());
}

TEST_F(ServerTest, ReflectionListsTheServices) {
  const absl::StatusOr<std::string> services = ListServices(server_->address());
  ASSERT_TRUE(services.ok()) << services.status();
  EXPECT_THAT(*services, HasSubstr("salamander.v1.Inference"));
  EXPECT_THAT(*services, HasSubstr("grpc.health.v1.Health"));
}

TEST_F(ServerTest, MessagesOfManyMegabytesPass) {
  v1::TokenizeRequest request;
  request.mutable_prompt()->set_text(std::string(20 << 20, 'x'));
  v1::TokenizeResponse response;
  grpc::ClientContext context;
  const grpc::Status status = stub_->Tokenize(&context, request, &response);
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(response.ids(0), 20 << 20);
}

TEST_F(ServerTest, LargerMessagesAreRefused) {
  // Not with our own channel, which would not send it.
  grpc::ChannelArguments arguments;
  arguments.SetMaxSendMessageSize(-1);
  const auto stub = v1::Inference::NewStub(
      grpc::CreateCustomChannel(server_->address(), grpc::InsecureChannelCredentials(), arguments));
  v1::TokenizeRequest request;
  request.mutable_prompt()->mutable_text()->resize(kMaxMessageBytes + 1, 'x');
  v1::TokenizeResponse response;
  grpc::ClientContext context;
  EXPECT_EQ(stub->Tokenize(&context, request, &response).error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
}

TEST_F(ServerTest, OneConnectionHasBoundedCalls) {
  std::vector<std::unique_ptr<EndlessCall>> calls;
  const auto wait_for = [this](int count) {
    const double deadline = RealClock().Now() + 20;
    while (service_.started < count && RealClock().Now() < deadline) {
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    return service_.started.load();
  };
  while (static_cast<int>(calls.size()) < kMaxStreamsPerConnection) {
    calls.push_back(std::make_unique<EndlessCall>(stub_.get()));
  }
  EXPECT_EQ(wait_for(kMaxStreamsPerConnection), kMaxStreamsPerConnection);
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(300));
  EXPECT_EQ(stub_->Generate(&context, {})->Finish().error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  EXPECT_EQ(service_.started, kMaxStreamsPerConnection);
  calls.erase(calls.begin());
  calls.push_back(std::make_unique<EndlessCall>(stub_.get()));  // takes the place
  EXPECT_EQ(wait_for(kMaxStreamsPerConnection + 1), kMaxStreamsPerConnection + 1);
}

TEST_F(ServerTest, AddressInUseIsAnErrorThatNamesIt) {
  Metrics metrics("other");
  const auto second = Server::Start({.listen = server_->address()}, &metrics, {});
  EXPECT_EQ(second.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(second.status().message()), HasSubstr(server_->address()));
  const auto third = Server::Start({.metrics_listen = server_->address()}, &metrics, {});
  EXPECT_EQ(third.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(third.status().message()), HasSubstr(server_->address()));
}

TEST_F(ServerTest, AddressWithoutPortIsRefused) {
  Metrics metrics("other");
  for (const char* address : {"", "nonsense", ":", "host:", ":80"}) {
    EXPECT_EQ(Server::Start({.listen = address}, &metrics, {}).status().code(), absl::StatusCode::kInvalidArgument)
        << address;
  }
}

TEST_F(ServerTest, ShutdownCancelsWhatOutlivesTheGrace) {
  grpc::ClientContext context;
  const auto reader = stub_->Generate(&context, {});
  v1::GenerateResponse response;
  ASSERT_TRUE(reader->Read(&response));
  const double start = RealClock().Now();
  server_->Shutdown(0.3);
  const double seconds = RealClock().Now() - start;
  EXPECT_GE(seconds, 0.25);
  EXPECT_LT(seconds, 5);
  EXPECT_FALSE(reader->Read(&response));
  EXPECT_FALSE(reader->Finish().ok());
}

TEST_F(ServerTest, ShutdownWithoutCallsIsQuick) {
  const double start = RealClock().Now();
  server_->Shutdown(600);
  EXPECT_LT(RealClock().Now() - start, 5);
}

}  // namespace
}  // namespace salamander::service
