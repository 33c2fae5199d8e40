#include "clients/cpp/client.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "absl/synchronization/notification.h"
#include "tests/clients/fake_router.h"

namespace salamander::client {
namespace {

using ::testing::ElementsAre;
using testing::FakeRouter;

class ClientTest : public ::testing::Test {
 protected:
  Client Connect() {
    absl::StatusOr<Client> client = Client::Connect(router_.address());
    EXPECT_TRUE(client.ok()) << client.status();
    return *std::move(client);
  }
  FakeRouter router_;
};

// Ends when the client is gone, so the test hangs (and fails by its time limit) if a cancel does not arrive.
grpc::Status WaitForCancel(grpc::ServerContext& context) {
  while (!context.IsCancelled()) std::this_thread::sleep_for(std::chrono::milliseconds(5));
  return grpc::Status::CANCELLED;
}

TEST_F(ClientTest, CompleteCollectsTheAnswer) {
  std::vector<size_t> kinds;
  absl::StatusOr<Completion> answer =
      Connect().Complete({.prompt = Text("hi")}, {}, [&](const Event& event) { kinds.push_back(event.index()); });
  ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_THAT(kinds, ElementsAre(0, 1, 1, 2, 2, 3));  // accepted, progress, progress, tokens, tokens, finished
  EXPECT_EQ(answer->request_id, "00000000000000ab");
  EXPECT_THAT(answer->tokens, ElementsAre(11, 12));
  EXPECT_EQ(answer->text, "Hello there");
  ASSERT_EQ(answer->logprobs.size(), 2U);
  EXPECT_EQ(answer->logprobs[1].logprob, -0.25F);
  EXPECT_EQ(answer->logprobs[1].top[0].token, 112);
  const Finished& finished = answer->finished;
  EXPECT_EQ(finished.reason, FinishReason::kLength);
  EXPECT_EQ(finished.usage.prompt_tokens, 2000);
  EXPECT_EQ(finished.timing.transfer_exposed, 4);
  EXPECT_EQ(finished.spans[1].worker, "prefill-1");
  EXPECT_EQ(finished.decode_worker, "decode-0");
  EXPECT_EQ(finished.seed, 42U);
}

TEST_F(ClientTest, SendsWhatWasSetAndNothingElse) {
  GenerateRequest request{.prompt = TokenIds{5, 6}, .max_tokens = 9};
  request.stop.emplace_back("end");
  request.stop.emplace_back(7);
  request.sampling.temperature = 0;
  request.sampling.logit_bias[3] = -100;
  request.logprobs = 0;
  request.priority = -5;
  ASSERT_TRUE(Connect().Complete(request).ok());
  const v1::GenerateRequest sent = router_.last_request();
  EXPECT_THAT(sent.prompt().tokens().ids(), ElementsAre(5, 6));
  EXPECT_FALSE(sent.prompt().has_text());
  EXPECT_EQ(sent.max_tokens(), 9);
  EXPECT_TRUE(sent.sampling().has_temperature());
  EXPECT_EQ(sent.sampling().temperature(), 0);
  EXPECT_FALSE(sent.sampling().has_top_p());
  EXPECT_FALSE(sent.sampling().has_seed());
  EXPECT_EQ(sent.sampling().logit_bias().at(3), -100);
  EXPECT_EQ(sent.stop(0).text(), "end");
  EXPECT_EQ(sent.stop(1).token_id(), 7);
  EXPECT_TRUE(sent.has_logprobs());
  EXPECT_EQ(sent.priority(), -5);
}

TEST_F(ClientTest, SendsChat) {
  ASSERT_TRUE(Connect().Complete({.prompt = Chat{{"system", "be brief"}, {"user", "hi"}}}).ok());
  const v1::GenerateRequest sent = router_.last_request();
  ASSERT_EQ(sent.prompt().chat().messages_size(), 2);
  EXPECT_EQ(sent.prompt().chat().messages(1).role(), "user");
  EXPECT_EQ(sent.prompt().chat().messages(1).content(), "hi");
}

TEST_F(ClientTest, KeepsCodeAndMessageOfErrors) {
  router_.set_script([](grpc::ServerContext&, const v1::GenerateRequest&, FakeRouter::Writer&) {
    return grpc::Status(grpc::StatusCode::INVALID_ARGUMENT, "max_tokens must be > 0, got -1");
  });
  const Client client = Connect();
  std::unique_ptr<GenerateCall> call = client.Generate({.prompt = Text("hi")});
  for (int i = 0; i < 2; ++i) {  // and again when asked again
    absl::StatusOr<Event> event = call->Next();
    EXPECT_TRUE(absl::IsInvalidArgument(event.status()));
    EXPECT_EQ(event.status().message(), "max_tokens must be > 0, got -1");
  }
}

TEST_F(ClientTest, TellsWhenToRetry) {
  router_.set_script([](grpc::ServerContext& context, const v1::GenerateRequest&, FakeRouter::Writer&) {
    context.AddTrailingMetadata("grpc-retry-pushback-ms", "1500");
    return grpc::Status(grpc::StatusCode::RESOURCE_EXHAUSTED, "the queue is full");
  });
  const Client client = Connect();
  std::unique_ptr<GenerateCall> call = client.Generate({.prompt = Text("hi")});
  EXPECT_EQ(call->retry_after(), std::nullopt);
  EXPECT_TRUE(absl::IsResourceExhausted(call->Next().status()));
  EXPECT_EQ(call->retry_after(), absl::Milliseconds(1500));
}

TEST_F(ClientTest, AStreamWithoutFinishedIsAnError) {
  router_.set_script(
      [](grpc::ServerContext&, const v1::GenerateRequest&, FakeRouter::Writer&) { return grpc::Status::OK; });
  EXPECT_TRUE(absl::IsInternal(Connect().Complete({.prompt = Text("hi")}).status()));
}

TEST_F(ClientTest, SkipsEventsOfLaterVersions) {
  router_.set_script([](grpc::ServerContext&, const v1::GenerateRequest&, FakeRouter::Writer& writer) {
    writer.Write(v1::GenerateResponse());
    testing::WriteSampleEvents(writer);
    return grpc::Status::OK;
  });
  EXPECT_TRUE(Connect().Complete({.prompt = Text("hi")}).ok());
}

TEST_F(ClientTest, NothingComesAfterFinished) {
  const Client client = Connect();
  std::unique_ptr<GenerateCall> call = client.Generate({.prompt = Text("hi")});
  absl::StatusOr<Event> event;
  do {
    event = call->Next();
    ASSERT_TRUE(event.ok());
  } while (!std::holds_alternative<Finished>(*event));
  EXPECT_EQ(call->Next().status().code(), absl::StatusCode::kFailedPrecondition);
}

TEST_F(ClientTest, CancelFromAnotherThreadReachesTheRouter) {
  absl::Notification cancelled;
  router_.set_script([&](grpc::ServerContext& context, const v1::GenerateRequest&, FakeRouter::Writer& writer) {
    v1::GenerateResponse accepted;
    accepted.mutable_accepted();
    writer.Write(accepted);
    const grpc::Status status = WaitForCancel(context);
    cancelled.Notify();
    return status;
  });
  const Client client = Connect();
  std::unique_ptr<GenerateCall> call = client.Generate({.prompt = Text("hi")});
  ASSERT_TRUE(call->Next().ok());
  std::thread other([&] { call->Cancel(); });
  EXPECT_TRUE(absl::IsCancelled(call->Next().status()));
  other.join();
  EXPECT_TRUE(cancelled.WaitForNotificationWithTimeout(absl::Seconds(10)));
}

TEST_F(ClientTest, ACallThatIsDroppedIsCancelled) {
  absl::Notification cancelled;
  router_.set_script([&](grpc::ServerContext& context, const v1::GenerateRequest&, FakeRouter::Writer& writer) {
    v1::GenerateResponse accepted;
    accepted.mutable_accepted();
    writer.Write(accepted);
    const grpc::Status status = WaitForCancel(context);
    cancelled.Notify();
    return status;
  });
  const Client client = Connect();
  std::unique_ptr<GenerateCall> call = client.Generate({.prompt = Text("hi")});
  ASSERT_TRUE(call->Next().ok());  // now the router has it
  call.reset();
  EXPECT_TRUE(cancelled.WaitForNotificationWithTimeout(absl::Seconds(10)));
}

TEST_F(ClientTest, DeadlinePasses) {
  router_.set_script([](grpc::ServerContext& context, const v1::GenerateRequest&, FakeRouter::Writer&) {
    return WaitForCancel(context);
  });
  const absl::Status status = Connect().Complete({.prompt = Text("hi")}, {.timeout = absl::Milliseconds(100)}).status();
  EXPECT_TRUE(absl::IsDeadlineExceeded(status)) << status;
}

TEST_F(ClientTest, TokenizeAndGetModel) {
  const Client client = Connect();
  absl::StatusOr<std::vector<int32_t>> ids = client.Tokenize(Text("AB"));
  ASSERT_TRUE(ids.ok());
  EXPECT_THAT(*ids, ElementsAre(65, 66));
  router_.set_tokenize_status(grpc::Status(grpc::StatusCode::FAILED_PRECONDITION, "no tokenizer"));
  EXPECT_EQ(client.Tokenize(Text("AB")).status().message(), "no tokenizer");
  absl::StatusOr<ModelInfo> model = client.GetModel();
  ASSERT_TRUE(model.ok());
  EXPECT_EQ(model->max_total_tokens, 4096);
}

TEST_F(ClientTest, GetStatus) {
  router_.set_status(testing::SampleStatus());
  absl::StatusOr<ClusterStatus> status = Connect().GetStatus();
  ASSERT_TRUE(status.ok());
  EXPECT_TRUE(status->ready);
  ASSERT_EQ(status->workers.size(), 2U);
  const WorkerStatus& worker = status->workers[0];
  EXPECT_EQ(worker.role, WorkerRole::kPrefill);
  EXPECT_EQ(worker.memory_by_owner.at("weights"), int64_t{1} << 30);
  EXPECT_EQ(worker.links[0].peer, "decode-0");
  EXPECT_EQ(status->workers[1].role, WorkerRole::kDecode);
  EXPECT_FALSE(status->workers[1].ready);
}

}  // namespace
}  // namespace salamander::client
