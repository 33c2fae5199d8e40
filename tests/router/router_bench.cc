// What the router adds to a request: its program over workers that answer at once, against the same calls to the same
// workers without a router.
//
//   router_bench [--model=tests/data/golden/dense] [--requests=2000] [--parallel=16] [--prompt_tokens=100,100000]
//   [--json]
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/flags/usage.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/status_macros.h"
#include "common/service/channel.h"
#include "router/planner.h"
#include "salamander/v1/inference.grpc.pb.h"
#include "tests/router/fake_worker.h"
#include "tests/router/router_process.h"
#include "tests/testing/paths.h"

ABSL_FLAG(std::string, model, "", "folder with a config.json; default: the golden case dense");
ABSL_FLAG(int, requests, 2000, "requests per measurement");
ABSL_FLAG(int, parallel, 16, "clients at once in the second measurement");
ABSL_FLAG(std::vector<std::string>, prompt_tokens, (std::vector<std::string>{"100", "100000"}), "prompt lengths");
ABSL_FLAG(bool, json, false, "one JSON object per line instead of text");

namespace salamander::router {
namespace {

// Memory never makes a request wait here.
constexpr int64_t kPlentyBytes = int64_t{1} << 40;

struct Latencies {
  double seconds = 0;  // of the whole run
  std::vector<double> each;
  double Quantile(double q) const { return each[std::min(each.size() - 1, static_cast<size_t>(q * each.size()))]; }
};

// Runs `request` from so many threads at once; sorted.
Latencies Measure(int requests, int parallel, const std::function<bool()>& request) {
  Latencies result;
  result.each.resize(requests);
  std::atomic<int> next = 0;
  std::atomic<bool> failed = false;
  std::vector<std::thread> threads;
  const double begin = RealClock().Now();
  for (int t = 0; t < parallel; ++t) {
    threads.emplace_back([&] {
      for (int i = next++; i < requests && !failed; i = next++) {
        const double start = RealClock().Now();
        if (!request()) failed = true;
        result.each[i] = RealClock().Now() - start;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  result.seconds = RealClock().Now() - begin;
  if (failed) result.each.clear();
  std::sort(result.each.begin(), result.each.end());
  return result;
}

v1::GenerateRequest RequestOf(int64_t tokens) {
  v1::GenerateRequest request;
  for (int64_t i = 0; i < tokens; ++i)
    request.mutable_prompt()->mutable_tokens()->add_ids(static_cast<int32_t>(i % 50));
  return request;
}

bool ThroughRouter(v1::Inference::Stub* stub, const v1::GenerateRequest& request) {
  grpc::ClientContext context;
  auto reader = stub->Generate(&context, request);
  v1::GenerateResponse event;
  while (reader->Read(&event)) {
  }
  const grpc::Status status = reader->Finish();
  if (!status.ok()) std::fprintf(stderr, "%s\n", status.error_message().c_str());
  return status.ok();
}

// What any router has to do for one request on one prefill worker: two reservations, two streams.
class Direct {
 public:
  Direct(const FakePrefillWorker& prefill, const FakeDecodeWorker& decode)
      : prefill_(v1::PrefillWorker::NewStub(service::MakeChannel(prefill.address()))),
        decode_(v1::DecodeWorker::NewStub(service::MakeChannel(decode.address()))),
        candidate_{.instance = 1, .name = prefill.name(), .max_span_tokens = 8192} {}

  bool Run(const v1::GenerateRequest& request) const {
    v1::ReserveRequest reserve;
    *reserve.mutable_plan() =
        PlanSpans(request.prompt().tokens().ids_size(), {.span_tokens = 8192, .min_span_tokens = 1024}, {candidate_});
    v1::ReserveResponse on_decode, on_prefill;
    grpc::ClientContext contexts[4];
    if (!decode_->Reserve(&contexts[0], reserve, &on_decode).ok()) return false;
    if (!prefill_->Reserve(&contexts[1], reserve, &on_prefill).ok()) return false;
    auto decode = decode_->Decode(&contexts[2]);
    auto prefill = prefill_->Prefill(&contexts[3]);
    v1::DecodeCommand decode_start;
    decode_start.mutable_start()->set_epoch(on_decode.epoch());
    v1::PrefillCommand prefill_start;
    prefill_start.mutable_start()->set_epoch(on_prefill.epoch());
    *prefill_start.mutable_start()->mutable_tokens() = request.prompt().tokens().ids();
    decode->Write(decode_start);
    prefill->Write(prefill_start);
    v1::PrefillEvent prefilled;
    while (!prefilled.has_done() && prefill->Read(&prefilled)) {
      if (!prefilled.has_span_done()) continue;
      v1::DecodeCommand finished;
      finished.mutable_span_finished()->set_span(prefilled.span_done().span());
      decode->Write(finished);
    }
    prefill->WritesDone();
    v1::DecodeEvent event;
    while (decode->Read(&event)) {
    }
    return decode->Finish().ok() && prefill->Finish().ok();
  }

 private:
  std::unique_ptr<v1::PrefillWorker::Stub> prefill_;
  std::unique_ptr<v1::DecodeWorker::Stub> decode_;
  PlanCandidate candidate_;
};

void Print(int64_t tokens, int parallel, const Latencies& direct, const Latencies& routed, double cpu) {
  const double requests = static_cast<double>(routed.each.size());
  const char* format =
      absl::GetFlag(FLAGS_json)
          ? "{\"prompt_tokens\":%d,\"parallel\":%d,\"direct_p50_us\":%.1f,\"routed_p50_us\":%.1f,\"added_p50_us\":%.1f,"
            "\"routed_p99_us\":%.1f,\"added_p99_us\":%.1f,\"router_cpu_us\":%.1f,\"requests_per_s\":%.1f}\n"
          : "prompt %7d tokens, %2d at once: p50 without router %7.0f us, with %7.0f us, added %6.0f us; p99 %7.0f us, "
            "added %6.0f us; router CPU %6.0f us a request; %6.0f requests/s\n";
  std::printf(format, static_cast<int>(tokens), parallel, direct.Quantile(0.5) * 1e6, routed.Quantile(0.5) * 1e6,
              (routed.Quantile(0.5) - direct.Quantile(0.5)) * 1e6, routed.Quantile(0.99) * 1e6,
              (routed.Quantile(0.99) - direct.Quantile(0.99)) * 1e6, cpu / requests * 1e6, requests / routed.seconds);
  std::fflush(stdout);
}

absl::Status WaitUntilReady(const std::string& router) {
  const auto cluster = v1::Cluster::NewStub(service::MakeChannel(router));
  for (const double end = RealClock().Now() + 20; RealClock().Now() < end;) {
    grpc::ClientContext context;
    v1::GetStatusResponse status;
    cluster->GetStatus(&context, {}, &status);
    if (status.ready()) return absl::OkStatus();
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return absl::DeadlineExceededError("the router is not ready after 20 s");
}

absl::Status Run() {
  InitLog("router_bench", LogLevel::kError);
  std::string model = absl::GetFlag(FLAGS_model);
  if (model.empty()) model = testing::TestData("golden/dense");
  ASSIGN_OR_RETURN(const auto router,
                   RouterProcess::Start(testing::BinDir() + "/salamander-router",
                                        {"--model=" + model, "--log_level=error", "--die_with_parent",
                                         "--metrics_listen=", "--max_running=1000"}));
  FakePrefillWorker prefill("p0", {.tokens = {1}});
  FakeDecodeWorker decode("d0", {.tokens = {1}});
  for (FakeWorker* worker : {static_cast<FakeWorker*>(&prefill), static_cast<FakeWorker*>(&decode)}) {
    worker->hello().set_request_memory_bytes(kPlentyBytes);
    worker->SetFreeMemory(kPlentyBytes);
  }
  prefill.Register(router->address());
  decode.Register(router->address());
  RETURN_IF_ERROR(WaitUntilReady(router->address()));
  const auto stub = v1::Inference::NewStub(service::MakeChannel(router->address()));
  const Direct direct(prefill, decode);
  for (const std::string& text : absl::GetFlag(FLAGS_prompt_tokens)) {
    const int64_t tokens = std::strtoll(text.c_str(), nullptr, 10);
    const v1::GenerateRequest request = RequestOf(tokens);
    // Long prompts are dominated by their bytes; fewer of them tell as much.
    const int requests = std::max<int>(50, absl::GetFlag(FLAGS_requests) * 100 / std::max<int64_t>(100, tokens));
    for (const int parallel : {1, absl::GetFlag(FLAGS_parallel)}) {
      Measure(50, parallel, [&] { return ThroughRouter(stub.get(), request) && direct.Run(request); });  // warm up
      const Latencies without = Measure(requests, parallel, [&] { return direct.Run(request); });
      const double cpu = router->CpuSeconds();
      const Latencies with = Measure(requests, parallel, [&] { return ThroughRouter(stub.get(), request); });
      if (without.each.empty() || with.each.empty()) return absl::UnavailableError("a request failed");
      Print(tokens, parallel, without, with, router->CpuSeconds() - cpu);
    }
  }
  return absl::OkStatus();
}

}  // namespace
}  // namespace salamander::router

int main(int argc, char** argv) {
  absl::SetProgramUsageMessage("router_bench: what the router adds to a request.");
  absl::ParseCommandLine(argc, argv);
  const absl::Status status = salamander::router::Run();
  if (!status.ok()) std::fprintf(stderr, "router_bench: %s\n", status.ToString().c_str());
  return status.ok() ? 0 : 1;
}
