// A router with scripted workers, all in this process.
#ifndef SALAMANDER_TESTS_ROUTER_ROUTER_FIXTURE_H_
#define SALAMANDER_TESTS_ROUTER_ROUTER_FIXTURE_H_

#include <grpcpp/client_context.h>
#include <gtest/gtest.h>

#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "common/service/channel.h"
#include "router/start.h"
#include "salamander/v1/inference.grpc.pb.h"
#include "tests/router/fake_worker.h"

namespace salamander::router {

constexpr int64_t kVocabulary = 1000;

struct Answer {
  grpc::Status status;
  std::vector<v1::GenerateResponse> events;
  std::vector<int32_t> tokens;
  std::string text;
  v1::Finished finished;
  std::string retry_after_ms;
};

class RouterTest : public ::testing::Test {
 protected:
  static RouterOptions FastOptions() {
    RouterOptions options;
    options.server.metrics_listen = "";  // Its HTTP server takes seconds to stop.
    options.heartbeat_seconds = 1;
    options.lease_seconds = 10;
    options.span_tokens = 256;
    options.min_span_tokens = 128;
    return options;
  }

  void StartRouter(const RouterOptions& options = FastOptions()) {
    ModelInfo model;
    model.name = "fake";
    model.fingerprint = "fingerprint";
    model.vocab_size = kVocabulary;
    model.eos_token_ids = {2};
    auto router = router::StartRouter(options, std::move(model));
    ASSERT_TRUE(router.ok()) << router.status();
    router_ = *std::move(router);
    channel_ = service::MakeChannel(router_->address());
    stub_ = v1::Inference::NewStub(channel_);
    cluster_ = v1::Cluster::NewStub(channel_);
  }

  FakePrefillWorker& AddPrefill(const std::string& name, Script script = {}) {
    prefill_.push_back(std::make_unique<FakePrefillWorker>(name, std::move(script)));
    prefill_.back()->Register(router_->address());
    WaitForWorkers();
    return *prefill_.back();
  }
  FakeDecodeWorker& AddDecode(const std::string& name, Script script = {}) {
    decode_.push_back(std::make_unique<FakeDecodeWorker>(name, std::move(script)));
    decode_.back()->Register(router_->address());
    WaitForWorkers();
    return *decode_.back();
  }

  v1::GetStatusResponse Status() {
    grpc::ClientContext context;
    v1::GetStatusResponse response;
    EXPECT_TRUE(cluster_->GetStatus(&context, {}, &response).ok());
    return response;
  }

  // Asks until the router's status is as wanted; false after 10 s.
  template <typename Condition>
  bool WaitForStatus(Condition condition) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(10);
    std::mutex mutex;
    std::condition_variable never;
    std::unique_lock lock(mutex);
    while (std::chrono::steady_clock::now() < end) {
      if (condition(Status())) return true;
      never.wait_for(lock, std::chrono::milliseconds(2));
    }
    return false;
  }

  void WaitForWorkers() {
    const int wanted = static_cast<int>(prefill_.size() + decode_.size());
    ASSERT_TRUE(WaitForStatus([wanted](const v1::GetStatusResponse& status) {
      int ready = 0;
      for (const v1::WorkerStatus& worker : status.workers()) ready += worker.last().ready();
      return ready == wanted;
    }));
  }

  static v1::GenerateRequest Tokens(int count) {
    v1::GenerateRequest request;
    for (int i = 0; i < count; ++i) request.mutable_prompt()->mutable_tokens()->add_ids(i % kVocabulary);
    return request;
  }

  // Reads a call to its end.
  static Answer Collect(grpc::ClientContext* context, grpc::ClientReader<v1::GenerateResponse>* reader) {
    Answer answer;
    v1::GenerateResponse event;
    while (reader->Read(&event)) {
      for (int32_t id : event.tokens().ids()) answer.tokens.push_back(id);
      answer.text += event.tokens().text();
      if (event.has_finished()) answer.finished = event.finished();
      answer.events.push_back(event);
    }
    answer.status = reader->Finish();
    const auto& trailers = context->GetServerTrailingMetadata();
    if (auto found = trailers.find("grpc-retry-pushback-ms"); found != trailers.end()) {
      answer.retry_after_ms = std::string(found->second.data(), found->second.size());
    }
    return answer;
  }

  // Shows `key` if there is one.
  Answer Generate(const v1::GenerateRequest& request, double deadline_seconds = 20, const std::string& key = "") {
    grpc::ClientContext context;
    if (!key.empty()) context.AddMetadata("authorization", "Bearer " + key);
    context.set_deadline(std::chrono::system_clock::now() +
                         std::chrono::milliseconds(static_cast<int64_t>(deadline_seconds * 1000)));
    auto reader = stub_->Generate(&context, request);
    return Collect(&context, reader.get());
  }

  // Every worker has all its memory back.
  void ExpectNothingHeld() {
    for (const auto& worker : prefill_) EXPECT_TRUE(worker->WaitUntilNothingHeld()) << worker->name();
    for (const auto& worker : decode_) EXPECT_TRUE(worker->WaitUntilNothingHeld()) << worker->name();
    EXPECT_TRUE(WaitForStatus([](const v1::GetStatusResponse& status) {
      bool idle = status.running_requests() == 0 && status.queued_requests() == 0;
      for (const v1::WorkerStatus& worker : status.workers()) idle &= worker.running_requests() == 0;
      return idle;
    }));
  }

  // The router goes first: workers' registrations end with it, and fakes can end their streams.
  void TearDown() override {
    for (const auto& worker : prefill_) worker->Unregister();
    for (const auto& worker : decode_) worker->Unregister();
    router_.reset();
  }

  std::unique_ptr<Router> router_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::Inference::Stub> stub_;
  std::unique_ptr<v1::Cluster::Stub> cluster_;
  std::vector<std::unique_ptr<FakePrefillWorker>> prefill_;
  std::vector<std::unique_ptr<FakeDecodeWorker>> decode_;
};

}  // namespace salamander::router

#endif  // SALAMANDER_TESTS_ROUTER_ROUTER_FIXTURE_H_
