// The whole router over scripted workers: the ordinary course, and what it tells whom.
#include "router/router.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/router/router_fixture.h"

namespace salamander::router {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

TEST_F(RouterTest, RelaysTokensAndReportsPlanUsageAndTiming) {
  StartRouter();
  auto& p0 = AddPrefill("p0");
  auto& p1 = AddPrefill("p1");
  auto& d0 = AddDecode("d0");
  v1::GenerateRequest request = Tokens(700);
  request.mutable_sampling()->set_seed(42);
  const Answer answer = Generate(request);
  ASSERT_TRUE(answer.status.ok()) << answer.status.error_message();

  ASSERT_GE(answer.events.size(), 6u);
  EXPECT_TRUE(answer.events.front().has_accepted());
  EXPECT_EQ(answer.events.front().accepted().prompt_tokens(), 700);
  EXPECT_TRUE(answer.events[1].has_progress());
  EXPECT_TRUE(answer.events.back().has_finished());
  EXPECT_THAT(answer.tokens, ElementsAre(7, 8, 9));
  EXPECT_EQ(answer.text, "7 8 9 ");

  const v1::Finished& finished = answer.finished;
  EXPECT_EQ(finished.reason(), v1::FINISH_REASON_STOP);
  EXPECT_EQ(finished.usage().prompt_tokens(), 700);
  EXPECT_EQ(finished.usage().completion_tokens(), 3);
  EXPECT_EQ(finished.seed(), 42u);
  EXPECT_EQ(finished.decode_worker(), "d0");
  ASSERT_EQ(finished.spans_size(), 3);
  EXPECT_EQ(finished.spans(1).begin(), 256);
  EXPECT_EQ(finished.spans(1).worker(), "p1");
  const v1::Timing& t = finished.timing();
  EXPECT_GT(t.ttft(), 0);
  EXPECT_EQ(t.ttft(), t.router_queue() + t.prefill_queue() + t.prefill() + t.transfer_exposed() + t.decode_queue() +
                          t.first_step());

  // Each is told of the others' spans only, the decode worker of all.
  ExpectNothingHeld();
  EXPECT_THAT(p0.finished_spans(), ElementsAre(1));
  EXPECT_THAT(p1.finished_spans(), ::testing::UnorderedElementsAre(0, 2));
  EXPECT_THAT(d0.finished_spans(), ::testing::UnorderedElementsAre(0, 1, 2));
  // The streams ended by themselves.
  EXPECT_EQ(p0.cancelled() + p1.cancelled() + d0.cancelled(), 0);
}

TEST_F(RouterTest, LegsGetTheirTokensSubscribersAndFilledInOptions) {
  StartRouter();
  auto& p0 = AddPrefill("p0");
  auto& p1 = AddPrefill("p1");
  auto& d0 = AddDecode("d0");
  v1::GenerateRequest request = Tokens(600);
  request.set_priority(3);
  request.mutable_sampling()->set_repetition_penalty(1.5);
  ASSERT_TRUE(Generate(request).status.ok());
  ExpectNothingHeld();

  const v1::PrefillStart start = p0.last_prefill_start();
  ASSERT_EQ(start.tokens_size(), 256 + 88);  // spans 0 and 2 of [0,256) [256,512) [512,600)
  EXPECT_EQ(start.tokens(255), 255);
  EXPECT_EQ(start.tokens(256), 512);
  EXPECT_EQ(start.priority(), 3);
  ASSERT_EQ(start.subscribers_size(), 3);
  EXPECT_EQ(start.subscribers(1).instance_id(), p1.hello().instance_id());
  EXPECT_EQ(start.subscribers(2).instance_id(), d0.hello().instance_id());
  EXPECT_EQ(start.subscribers(2).epoch(), d0.last_decode_start().epoch());
  EXPECT_EQ(start.subscribers(0).secret(), "p0 1");
  EXPECT_EQ(start.subscribers(1).secret(), "p1 1");
  EXPECT_EQ(start.subscribers(2).secret(), "d0 1");

  const v1::DecodeStart decode = d0.last_decode_start();
  EXPECT_EQ(decode.max_tokens(), RouterOptions().default_max_tokens);
  EXPECT_EQ(decode.logprobs(), -1);
  EXPECT_EQ(decode.sampling().top_p(), 1);
  EXPECT_TRUE(decode.sampling().has_seed());
  EXPECT_EQ(decode.prompt_tokens_size(), 600);  // a repetition penalty needs them
}

TEST_F(RouterTest, ReadyMayOvertakeTheLastSpansEnd) {
  StartRouter();
  AddPrefill("p0");
  AddDecode("d0", {.ready_at_once = true});
  const Answer answer = Generate(Tokens(500));
  ASSERT_TRUE(answer.status.ok()) << answer.status.error_message();
  EXPECT_THAT(answer.tokens, ElementsAre(7, 8, 9));
  int64_t prefilled = 0;
  for (const v1::GenerateResponse& event : answer.events) {
    if (event.has_progress()) prefilled = event.progress().prefilled_tokens();
  }
  EXPECT_EQ(prefilled, 500);
  ExpectNothingHeld();
}

TEST_F(RouterTest, RefusesBadRequestsWithoutTouchingWorkers) {
  StartRouter();
  auto& p0 = AddPrefill("p0");
  auto& d0 = AddDecode("d0");
  v1::GenerateRequest request = Tokens(10);
  request.mutable_sampling()->set_top_p(0);
  Answer answer = Generate(request);
  EXPECT_EQ(answer.status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(answer.status.error_message(), HasSubstr("sampling.top_p must be in (0, 1], got 0"));
  EXPECT_THAT(answer.events, IsEmpty());

  request = Tokens(10);
  request.mutable_prompt()->mutable_tokens()->set_ids(4, kVocabulary);
  EXPECT_THAT(Generate(request).status.error_message(), HasSubstr("prompt.tokens.ids[4]"));

  // The fakes' gigabyte holds 1023 page groups of 1024 tokens, less than the router's limit.
  request = Tokens(10);
  request.set_max_tokens(1023 * 1024);
  answer = Generate(request);
  EXPECT_EQ(answer.status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(answer.status.error_message(), HasSubstr("must fit the memory of a decode worker"));

  request = Tokens(10);
  request.mutable_prompt()->Clear();
  request.mutable_prompt()->set_text("no tokenizer here");
  EXPECT_EQ(Generate(request).status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(p0.reserved() + d0.reserved(), 0);
}

TEST_F(RouterTest, IsUnavailableAtOnceWithoutWorkers) {
  StartRouter();
  EXPECT_FALSE(Status().ready());
  EXPECT_EQ(Generate(Tokens(10)).status.error_message(), "no prefill worker is ready");
  AddPrefill("p0");
  const Answer answer = Generate(Tokens(10));
  EXPECT_EQ(answer.status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(answer.status.error_message(), "no decode worker is ready");
  AddDecode("d0");
  EXPECT_TRUE(Status().ready());
  EXPECT_TRUE(Generate(Tokens(10)).status.ok());
}

TEST_F(RouterTest, ManyAtOnceAllGetTheirAnswers) {
  StartRouter();
  AddPrefill("p0");
  AddPrefill("p1");
  AddDecode("d0");
  AddDecode("d1");
  constexpr int kRequests = 64;
  std::vector<std::unique_ptr<grpc::ClientContext>> contexts;
  std::vector<std::unique_ptr<grpc::ClientReader<v1::GenerateResponse>>> readers;
  for (int i = 0; i < kRequests; ++i) {
    contexts.push_back(std::make_unique<grpc::ClientContext>());
    contexts.back()->set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(60));
    readers.push_back(stub_->Generate(contexts.back().get(), Tokens(10 + 40 * i)));
  }
  for (int i = 0; i < kRequests; ++i) {
    const Answer answer = Collect(contexts[i].get(), readers[i].get());
    EXPECT_TRUE(answer.status.ok()) << answer.status.error_message();
    EXPECT_THAT(answer.tokens, ElementsAre(7, 8, 9));
  }
  ExpectNothingHeld();
}

TEST_F(RouterTest, AnswersModelAndTokenize) {
  StartRouter();
  grpc::ClientContext model_context;
  v1::GetModelResponse model;
  ASSERT_TRUE(stub_->GetModel(&model_context, {}, &model).ok());
  EXPECT_EQ(model.name(), "fake");
  EXPECT_EQ(model.fingerprint(), "fingerprint");
  EXPECT_EQ(model.vocab_size(), kVocabulary);
  EXPECT_EQ(model.max_total_tokens(), 4 << 20);
  EXPECT_THAT(model.eos_token_ids(), ElementsAre(2));

  v1::TokenizeRequest request;
  *request.mutable_prompt() = Tokens(3).prompt();
  v1::TokenizeResponse response;
  grpc::ClientContext tokenize_context;
  ASSERT_TRUE(stub_->Tokenize(&tokenize_context, request, &response).ok());
  EXPECT_THAT(response.ids(), ElementsAre(0, 1, 2));
  request.mutable_prompt()->mutable_tokens()->clear_ids();
  grpc::ClientContext empty_context;
  EXPECT_EQ(stub_->Tokenize(&empty_context, request, &response).error_code(), grpc::StatusCode::INVALID_ARGUMENT);
}

TEST_F(RouterTest, PassesTheTraceContextToEveryLeg) {
  StartRouter();
  auto& p0 = AddPrefill("p0");
  auto& d0 = AddDecode("d0");
  const std::string parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
  const auto ask = [&](const std::string& traceparent) {
    grpc::ClientContext context;
    context.AddMetadata("traceparent", traceparent);
    context.AddMetadata("tracestate", "rojo=00f067aa0ba902b7");
    context.AddMetadata("tracestate", "congo=t61rcWkgMzE");
    auto reader = stub_->Generate(&context, Tokens(100));
    EXPECT_TRUE(Collect(&context, reader.get()).status.ok());
  };
  ask(parent);
  const std::string both = parent + " rojo=00f067aa0ba902b7,congo=t61rcWkgMzE";
  EXPECT_THAT(p0.traces(), ElementsAre(both, both)) << "its reservation and its stream";
  EXPECT_THAT(d0.traces(), ElementsAre(both, both));
  // A malformed parent is none, and its state means nothing.
  ask("00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
  EXPECT_THAT(p0.traces(), ElementsAre(both, both, "", ""));
}

}  // namespace
}  // namespace salamander::router
