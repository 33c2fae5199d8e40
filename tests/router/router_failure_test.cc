// Whatever goes wrong on any leg: one clear status for the client, every other leg ended, all memory back.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "tests/router/router_fixture.h"

namespace salamander::router {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

grpc::Status Busy() { return grpc::Status(grpc::StatusCode::RESOURCE_EXHAUSTED, "asked 9 bytes, free 1"); }

class RouterFailureTest : public RouterTest {
 protected:
  // Two prefill workers, of which the second plays `prefill`, and a decode worker that plays `decode`.
  void Start(Script prefill, Script decode, const RouterOptions& options = FastOptions()) {
    StartRouter(options);
    AddPrefill("p0");
    AddPrefill("p1", std::move(prefill));
    AddDecode("d0", std::move(decode));
  }

  // Two spans for each prefill worker.
  Answer Run() { return Generate(Tokens(1000)); }

  void ExpectFailure(const Answer& answer, grpc::StatusCode code, const std::string& message) {
    EXPECT_EQ(answer.status.error_code(), code) << answer.status.error_message();
    EXPECT_THAT(answer.status.error_message(), HasSubstr(message));
    EXPECT_FALSE(answer.finished.has_usage());
    ExpectNothingHeld();
  }
};

// ------------------------------------------------------------------------------------------ reserving

TEST_F(RouterFailureTest, ARefusedReservationIsTriedAgain) {
  Start({.reserve = {Busy()}}, {.reserve = {Busy(), Busy()}});
  const Answer answer = Run();
  EXPECT_TRUE(answer.status.ok()) << answer.status.error_message();
  EXPECT_THAT(answer.tokens, ElementsAre(7, 8, 9));
  ExpectNothingHeld();
  EXPECT_EQ(decode_[0]->reserved(), 4);  // two refusals, one given back, one used
  EXPECT_EQ(decode_[0]->released(), 1);
}

TEST_F(RouterFailureTest, AReservationThatCanNeverBeIsInvalid) {
  Start({.reserve = {grpc::Status(grpc::StatusCode::INVALID_ARGUMENT, "never")}}, {});
  ExpectFailure(Run(), grpc::StatusCode::INVALID_ARGUMENT, "prefill worker p1: never");
  EXPECT_EQ(decode_[0]->released(), 1);
  EXPECT_EQ(prefill_[0]->streams() + prefill_[1]->streams() + decode_[0]->streams(), 0);
}

TEST_F(RouterFailureTest, AWorkerThatCannotBeReachedIsTriedThriceThenNamed) {
  const grpc::Status down(grpc::StatusCode::UNAVAILABLE, "connection refused");
  Start({.reserve = {down, down, down, down, down, down}}, {});
  ExpectFailure(Run(), grpc::StatusCode::UNAVAILABLE, "prefill worker p1 was lost: connection refused");
  EXPECT_EQ(prefill_[1]->reserved(), 3);
}

TEST_F(RouterFailureTest, AReservationWithoutAnAnswerIsGivenUp) {
  RouterOptions options = FastOptions();
  options.lease_seconds = 0.2;
  Start({}, {.hang_in_reserve = true}, options);
  ExpectFailure(Run(), grpc::StatusCode::UNAVAILABLE, "decode worker d0 was lost: no answer to a reservation in 0.1 s");
}

TEST_F(RouterFailureTest, CancelledWhileReserving) {
  RouterOptions options = FastOptions();
  options.lease_seconds = 1;
  Start({.hang_in_reserve = true}, {}, options);
  grpc::ClientContext context;
  auto reader = stub_->Generate(&context, Tokens(1000));
  ASSERT_TRUE(prefill_[1]->WaitForReserve());
  context.TryCancel();
  EXPECT_EQ(Collect(&context, reader.get()).status.error_code(), grpc::StatusCode::CANCELLED);
  ExpectNothingHeld();
  EXPECT_EQ(decode_[0]->released(), 1);
}

// ------------------------------------------------------------------------------------------ prefilling

TEST_F(RouterFailureTest, AnyEndOfAPrefillStreamEndsTheRequest) {
  const struct {
    Stage stage;
    grpc::Status failure;
    grpc::StatusCode code;
    const char* message;
  } cases[] = {
      {Stage::kAtStart, grpc::Status(grpc::StatusCode::INTERNAL, "bug"), grpc::StatusCode::INTERNAL,
       "prefill worker p1: bug"},
      {Stage::kAfterOne, grpc::Status(grpc::StatusCode::DATA_LOSS, "item layer 3 span 0"), grpc::StatusCode::DATA_LOSS,
       "prefill worker p1: item layer 3 span 0"},
      {Stage::kAfterOne, grpc::Status(grpc::StatusCode::UNAVAILABLE, "link down"), grpc::StatusCode::UNAVAILABLE,
       "prefill worker p1 was lost: link down"},
      {Stage::kAtStart, grpc::Status::OK, grpc::StatusCode::UNAVAILABLE,
       "prefill worker p1 ended its stream before it was done"},
      {Stage::kAtStart, grpc::Status::CANCELLED, grpc::StatusCode::UNAVAILABLE, "prefill worker p1 was lost"},
  };
  StartRouter();
  AddPrefill("p0");
  AddDecode("d0");
  for (const auto& c : cases) {
    SCOPED_TRACE(c.message);
    AddPrefill("p1", {.fail_at = c.stage, .failure = c.failure});
    ExpectFailure(Run(), c.code, c.message);
    prefill_.pop_back();
    ASSERT_TRUE(WaitForStatus([](const v1::GetStatusResponse& status) { return status.workers_size() == 2; }));
  }
  EXPECT_TRUE(Run().status.ok());  // the others live on
}

TEST_F(RouterFailureTest, AForeignSpanIsAnError) {
  Start({.claims_foreign_span = true}, {});
  ExpectFailure(Run(), grpc::StatusCode::INTERNAL, "prefill worker p1: reported span 0 of 4, which is not its own");
}

TEST_F(RouterFailureTest, AKilledPrefillWorkerIsNamedAndTheOthersAreFreed) {
  Start({.hang_at = Stage::kAfterOne}, {});
  std::thread killer([this] {
    EXPECT_TRUE(prefill_[1]->WaitForStreams(1));
    prefill_[1]->Kill();
  });
  const Answer answer = Run();
  killer.join();
  ExpectFailure(answer, grpc::StatusCode::UNAVAILABLE, "prefill worker p1 was lost");
}

TEST_F(RouterFailureTest, AWorkerThatLeavesTheRegistryTakesItsRequestsAlong) {
  Start({.hang_at = Stage::kAtStart}, {});
  std::thread leaver([this] {
    EXPECT_TRUE(prefill_[1]->WaitForStreams(1));
    prefill_[1]->Unregister();  // its stream with the request stays open
  });
  const Answer answer = Run();
  leaver.join();
  ExpectFailure(answer, grpc::StatusCode::UNAVAILABLE, "prefill worker p1 was lost: the worker ended its registration");
  EXPECT_EQ(prefill_[1]->cancelled(), 1);
}

// ------------------------------------------------------------------------------------------ decoding

TEST_F(RouterFailureTest, AnyEndOfTheDecodeStreamEndsTheRequest) {
  const struct {
    Stage stage;
    grpc::Status failure;
    grpc::StatusCode code;
    const char* message;
    size_t tokens;
  } cases[] = {
      {Stage::kAtStart, grpc::Status(grpc::StatusCode::DATA_LOSS, "item layer 2 span 1 is missing"),
       grpc::StatusCode::DATA_LOSS, "decode worker d0: item layer 2 span 1 is missing", 0},
      {Stage::kAfterOne, grpc::Status(grpc::StatusCode::UNAVAILABLE, "going down"), grpc::StatusCode::UNAVAILABLE,
       "decode worker d0 was lost: going down", 1},
      {Stage::kAtEnd, grpc::Status::OK, grpc::StatusCode::UNAVAILABLE,
       "decode worker d0 ended its stream before it was done", 3},
  };
  StartRouter();
  AddPrefill("p0");
  AddPrefill("p1");
  for (const auto& c : cases) {
    SCOPED_TRACE(c.message);
    AddDecode("d0", {.fail_at = c.stage, .failure = c.failure});
    const Answer answer = Run();
    ExpectFailure(answer, c.code, c.message);
    EXPECT_EQ(answer.tokens.size(), c.tokens);
    decode_.pop_back();
    ASSERT_TRUE(WaitForStatus([](const v1::GetStatusResponse& status) { return status.workers_size() == 2; }));
  }
}

TEST_F(RouterFailureTest, TokensBeforeReadyAreAnError) {
  Start({.hang_at = Stage::kAtStart}, {.hang_at = Stage::kAtStart, .tokens_before_ready = true});
  const Answer answer = Run();
  ExpectFailure(answer, grpc::StatusCode::INTERNAL, "decode worker d0 sent tokens before it was ready");
  EXPECT_THAT(answer.tokens, IsEmpty());
}

TEST_F(RouterFailureTest, LosingAPrefillWorkerAfterItsPartIsNoLoss) {
  Start({}, {.hang_at = Stage::kAfterOne});
  grpc::ClientContext context;
  auto reader = stub_->Generate(&context, Tokens(1000));
  v1::GenerateResponse event;
  while (!event.has_tokens()) ASSERT_TRUE(reader->Read(&event));
  prefill_[1]->Kill();
  ASSERT_TRUE(WaitForStatus([](const v1::GetStatusResponse& status) { return status.workers_size() == 2; }));
  EXPECT_EQ(Status().running_requests(), 1);
  context.TryCancel();
  EXPECT_EQ(Collect(&context, reader.get()).status.error_code(), grpc::StatusCode::CANCELLED);
  ExpectNothingHeld();
}

// ------------------------------------------------------------------------------------------ the client

TEST_F(RouterFailureTest, TheClientsCancelReachesEveryLegInEveryPhase) {
  const struct {
    Script prefill, decode;
  } cases[] = {
      {{.hang_at = Stage::kAtStart}, {}},  {{.hang_at = Stage::kAfterOne}, {}}, {{}, {.hang_at = Stage::kAtStart}},
      {{}, {.hang_at = Stage::kAfterOne}}, {{}, {.hang_at = Stage::kAtEnd}},
  };
  for (const auto& c : cases) {
    Start(c.prefill, c.decode);
    grpc::ClientContext context;
    auto reader = stub_->Generate(&context, Tokens(1000));
    EXPECT_TRUE(decode_[0]->WaitForStreams(1));
    EXPECT_TRUE(prefill_[0]->WaitForStreams(1));
    EXPECT_TRUE(prefill_[1]->WaitForStreams(1));
    context.TryCancel();
    EXPECT_EQ(Collect(&context, reader.get()).status.error_code(), grpc::StatusCode::CANCELLED);
    ExpectNothingHeld();
    TearDown();
    prefill_.clear();
    decode_.clear();
  }
}

TEST_F(RouterFailureTest, TheDeadlineEndsAllLegs) {
  Start({.hang_at = Stage::kAfterOne}, {});
  const Answer answer = Generate(Tokens(1000), 0.3);
  EXPECT_EQ(answer.status.error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  ExpectNothingHeld();
  EXPECT_EQ(prefill_[0]->cancelled() + prefill_[1]->cancelled() + decode_[0]->cancelled(), 3);
}

// ------------------------------------------------------------------------------------------ the queue

TEST_F(RouterFailureTest, AFullQueueRefusesAtOnceWithAHint) {
  RouterOptions options = FastOptions();
  options.max_running = 1;
  options.queue_limit = 1;
  Start({}, {.hang_at = Stage::kAfterOne}, options);
  grpc::ClientContext running, waiting;
  auto running_reader = stub_->Generate(&running, Tokens(10));
  ASSERT_TRUE(decode_[0]->WaitForStreams(1));
  auto waiting_reader = stub_->Generate(&waiting, Tokens(10));
  ASSERT_TRUE(WaitForStatus([](const v1::GetStatusResponse& status) { return status.queued_requests() == 1; }));
  const Answer refused = Generate(Tokens(10));
  EXPECT_EQ(refused.status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_THAT(refused.status.error_message(),
              HasSubstr("the queue is full: 1 requests wait, the limit is 1; retry in"));
  EXPECT_EQ(refused.retry_after_ms, "1000");

  // Those in flight are unharmed, and the next goes when one ends.
  running.TryCancel();
  Collect(&running, running_reader.get());
  EXPECT_TRUE(decode_[0]->WaitForStreams(2));
  waiting.TryCancel();
  Collect(&waiting, waiting_reader.get());
  ExpectNothingHeld();
}

TEST_F(RouterFailureTest, MemoryThatBecomesFreeLetsTheQueueGo) {
  StartRouter();
  AddPrefill("p0");
  auto& d0 = AddDecode("d0");
  d0.SetFreeMemory(0);
  ASSERT_TRUE(WaitForStatus([](const v1::GetStatusResponse& status) {
    return status.workers(0).last().free_memory_bytes() == 0 || status.workers(1).last().free_memory_bytes() == 0;
  }));
  grpc::ClientContext context;
  auto reader = stub_->Generate(&context, Tokens(10));
  ASSERT_TRUE(WaitForStatus([](const v1::GetStatusResponse& status) { return status.queued_requests() == 1; }));
  EXPECT_EQ(d0.reserved(), 0);
  d0.SetFreeMemory(1 << 30);
  EXPECT_TRUE(Collect(&context, reader.get()).status.ok());
}

TEST_F(RouterFailureTest, AnExpiryInTheQueueTouchesNoWorker) {
  RouterOptions options = FastOptions();
  options.max_running = 1;
  Start({}, {.hang_at = Stage::kAfterOne}, options);
  grpc::ClientContext running;
  auto reader = stub_->Generate(&running, Tokens(10));
  ASSERT_TRUE(decode_[0]->WaitForStreams(1));
  EXPECT_EQ(Generate(Tokens(10), 0.2).status.error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  EXPECT_TRUE(WaitForStatus([](const v1::GetStatusResponse& status) { return status.queued_requests() == 0; }));
  EXPECT_EQ(decode_[0]->reserved(), 1);
  running.TryCancel();
  Collect(&running, reader.get());
  ExpectNothingHeld();
}

TEST_F(RouterFailureTest, TheLastWorkersDepartureEndsTheWait) {
  RouterOptions options = FastOptions();
  StartRouter(options);
  AddPrefill("p0");
  auto& d0 = AddDecode("d0");
  d0.SetFreeMemory(0);
  ASSERT_TRUE(WaitForStatus([](const v1::GetStatusResponse& status) {
    return status.workers(0).last().free_memory_bytes() == 0 || status.workers(1).last().free_memory_bytes() == 0;
  }));
  grpc::ClientContext context;
  auto reader = stub_->Generate(&context, Tokens(10));
  ASSERT_TRUE(WaitForStatus([](const v1::GetStatusResponse& status) { return status.queued_requests() == 1; }));
  d0.Unregister();
  const Answer answer = Collect(&context, reader.get());
  EXPECT_EQ(answer.status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(answer.status.error_message(), "no decode worker is left");
}

// ------------------------------------------------------------------------------------------ the router itself

TEST_F(RouterFailureTest, DrainLetsRunningRequestsEndAndRefusesNewOnes) {
  Start({.hang_at = Stage::kAfterOne}, {});
  grpc::ClientContext running;
  auto reader = stub_->Generate(&running, Tokens(1000));
  ASSERT_TRUE(prefill_[1]->WaitForStreams(1));
  std::thread drain([this] { router_->Drain(20); });
  EXPECT_TRUE(WaitForStatus([](const v1::GetStatusResponse& status) { return !status.ready(); }));
  EXPECT_EQ(Generate(Tokens(10)).status.error_message(), "the router is draining");
  EXPECT_EQ(Status().running_requests(), 1);
  running.TryCancel();
  Collect(&running, reader.get());
  drain.join();
}

TEST_F(RouterFailureTest, TheGraceEnds) {
  Start({.hang_at = Stage::kAfterOne}, {});
  grpc::ClientContext running;
  auto reader = stub_->Generate(&running, Tokens(1000));
  ASSERT_TRUE(prefill_[1]->WaitForStreams(1));
  router_->Drain(0.05);
  const Answer answer = Collect(&running, reader.get());
  EXPECT_EQ(answer.status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(answer.status.error_message(), "the router is shutting down");
  for (const auto& worker : prefill_) EXPECT_TRUE(worker->WaitUntilNothingHeld());
  EXPECT_TRUE(decode_[0]->WaitUntilNothingHeld());
}

// Without a deadline of its own.
TEST_F(RouterTest, TimeLimitEndsARequestInEveryState) {
  RouterOptions options = FastOptions();
  options.max_request_seconds = 0.3;
  StartRouter(options);
  // Waiting: there is nobody for it.
  auto& decode = AddDecode("d0", {.hang_at = Stage::kAtStart});
  auto& prefill = AddPrefill("p0");
  prefill.SetFreeMemory(0);
  ASSERT_TRUE(WaitForStatus([](const v1::GetStatusResponse& status) {
    for (const v1::WorkerStatus& worker : status.workers()) {
      if (worker.name() == "p0") return worker.last().free_memory_bytes() == 0;
    }
    return false;
  }));
  const Answer waiting = Generate(Tokens(300));
  EXPECT_EQ(waiting.status.error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  EXPECT_EQ(waiting.status.error_message(), "the limit of 0.3 s for a request passed while queued");
  // Running.
  prefill.SetFreeMemory(1 << 30);
  const Answer running = Generate(Tokens(300));
  EXPECT_EQ(running.status.error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  EXPECT_EQ(running.status.error_message(), "the limit of 0.3 s for a request passed while transferring");
  EXPECT_GE(decode.streams(), 1);
  ExpectNothingHeld();
}

TEST_F(RouterTest, RefusesAtOnceWhatWouldWaitTooLong) {
  RouterOptions options = FastOptions();
  options.max_queue_seconds = 5;
  StartRouter(options);
  AddDecode("d0");
  auto& prefill = AddPrefill("p0", {.hang_at = Stage::kAtStart});
  prefill.SetRate(100);
  ASSERT_TRUE(WaitForStatus([](const v1::GetStatusResponse& status) {
    for (const v1::WorkerStatus& worker : status.workers()) {
      if (worker.name() == "p0") return worker.last().tokens_per_second() == 100;
    }
    return false;
  }));
  const auto start = [this](grpc::ClientContext* context, int tokens) {
    auto reader = stub_->Generate(context, Tokens(tokens));
    v1::GenerateResponse accepted;
    EXPECT_TRUE(reader->Read(&accepted)) << tokens;
    return reader;
  };
  // With nothing ahead anything may try; 400 tokens ahead take 4 s; 600 take 6 s.
  grpc::ClientContext first, second, third;
  const auto running = start(&first, 400), behind = start(&second, 200);
  const Answer refused = Generate(Tokens(800));
  EXPECT_EQ(refused.status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(
      refused.status.error_message(),
      "the wait is too long: 600 tokens are ahead, at 100 tokens/s that takes 6 s, the limit is 5 s; retry in 6 s");
  EXPECT_EQ(refused.retry_after_ms, "6000");
  // Nothing is ahead of what goes first.
  v1::GenerateRequest urgent = Tokens(800);
  urgent.set_priority(1);
  const auto ahead = stub_->Generate(&third, urgent);
  v1::GenerateResponse accepted;
  EXPECT_TRUE(ahead->Read(&accepted));
  for (grpc::ClientContext* context : {&first, &second, &third}) context->TryCancel();
  for (auto* reader : {running.get(), behind.get(), ahead.get()}) reader->Finish();
  ExpectNothingHeld();
}

TEST_F(RouterTest, NobodyWaitsInTheQueueForLongerThanTheLimit) {
  RouterOptions options = FastOptions();
  options.max_queue_seconds = 0.3;
  options.max_running = 1;
  StartRouter(options);
  AddDecode("d0");
  AddPrefill("p0", {.hang_at = Stage::kAtStart});
  grpc::ClientContext context;
  auto running = stub_->Generate(&context, Tokens(100));
  v1::GenerateResponse accepted;
  ASSERT_TRUE(running->Read(&accepted));
  const Answer waited = Generate(Tokens(100));
  EXPECT_EQ(waited.status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_THAT(waited.status.error_message(),
              HasSubstr("no worker had room for 0.3 s, the limit of a wait in the queue"));
  EXPECT_EQ(Status().running_requests(), 1) << "the limit is of the wait only";
  context.TryCancel();
  running->Finish();
  ExpectNothingHeld();
}

}  // namespace
}  // namespace salamander::router
