#include "tests/common/worker/played_cluster.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <utility>

#include "tests/testing/make_checkpoint.h"
#include "tests/testing/paths.h"

namespace salamander::testing {
namespace {

template <typename T>
T OrDie(absl::StatusOr<T> value) {
  if (!value.ok()) {
    std::fprintf(stderr, "%s\n", value.status().ToString().c_str());
    std::abort();
  }
  return *std::move(value);
}

// What is not weights or workspace is free; those never change after start.
bool IsIdle(const MemoryLedger::Snapshot& now) {
  const int64_t fixed =
      now.held[static_cast<int>(MemoryOwner::kWeights)] + now.held[static_cast<int>(MemoryOwner::kWorkspace)];
  return now.free == now.capacity - fixed && now.held[static_cast<int>(MemoryOwner::kPages)] == 0 &&
         now.held[static_cast<int>(MemoryOwner::kStates)] == 0 &&
         now.held[static_cast<int>(MemoryOwner::kInTransfer)] == 0;
}

service::WorkerOptions CommonOptions(const PlayedClusterOptions& options, const std::string& router) {
  service::WorkerOptions common;
  common.model = GoldenCheckpoint(options.golden);
  common.routers = {router};
  // Stopping an exposer takes up to two seconds; metrics_test looks at metrics.
  common.server.metrics_listen = options.metrics ? "127.0.0.1:0" : "";
  common.memory_bytes = options.memory_bytes;
  common.transfer_buffer_bytes = 2 << 20;
  common.missing_item_seconds = options.missing_item_seconds;
  return common;
}

}  // namespace

PlayedCluster::PlayedCluster(const PlayedClusterOptions& options)
    : network_(options.faults),
      golden_(OrDie(model::SafetensorsFile::Open(TestData("golden/" + options.golden + "/golden.safetensors")))) {
  decode::DecodeWorkerOptions decode;
  static_cast<service::WorkerOptions&>(decode) = CommonOptions(options, router_.address());
  decode.name = "d0";
  decode.max_batch = options.max_batch;
  decode.capture_dir = options.capture_dir;
  decode_ = OrDie(decode::StartWorker(decode, network_.CreateTransport()));
  std::vector<std::string> names = {decode.name};
  for (int i = 0; i < options.prefill_workers; ++i) {
    prefill::PrefillWorkerOptions prefill;
    static_cast<service::WorkerOptions&>(prefill) = CommonOptions(options, router_.address());
    prefill.name = PrefillName(i);
    prefill.max_span_tokens = 2048;
    prefill.max_active_spans = options.max_active_spans;
    prefill_.push_back(OrDie(prefill::StartWorker(prefill, network_.CreateTransport())));
    names.push_back(prefill.name);
  }
  if (!router_.WaitReady(names)) OrDie(absl::StatusOr<int>(absl::DeadlineExceededError("workers are not ready")));
  for (int i = 0; i < options.prefill_workers; ++i) prefill_hellos_.push_back(router_.worker(PrefillName(i)).hello);
  decode_hello_ = router_.worker(decode.name).hello;
  if (!MemoryIsBack()) OrDie(absl::StatusOr<int>(absl::InternalError("memory is held before any request")));
}

PlayedCluster::~PlayedCluster() = default;

std::vector<int32_t> PlayedCluster::Ints(const std::string& tensor) const {
  const model::TensorView& view = golden_->tensors().at(tensor);
  std::vector<int32_t> values(view.elements());
  std::memcpy(values.data(), view.data, view.bytes);
  return values;
}

std::unique_ptr<PlayedRequest> PlayedCluster::Request(PlayedSpec spec) {
  if (spec.prompt.empty()) spec.prompt = prompt();
  return std::make_unique<PlayedRequest>(prefill_hellos_, decode_hello_, std::move(spec));
}

absl::Status PlayedCluster::Run(PlayedRequest& request) {
  if (absl::Status reserved = request.Reserve(); !reserved.ok()) return reserved;
  request.Start();
  return request.Wait();
}

std::vector<MemoryLedger::Snapshot> PlayedCluster::Memory() const {
  std::vector<MemoryLedger::Snapshot> memory;
  for (const auto& worker : prefill_) memory.push_back(worker->memory());
  memory.push_back(decode_->memory());
  return memory;
}

bool PlayedCluster::MemoryIsBack() {
  // Nothing announces the last byte's return, so this looks until a deadline.
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (true) {
    const std::vector<MemoryLedger::Snapshot> memory = Memory();
    if (std::all_of(memory.begin(), memory.end(), IsIdle)) return true;
    if (std::chrono::steady_clock::now() > deadline) break;
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  for (const MemoryLedger::Snapshot& now : Memory()) {
    for (int i = 0; i < kMemoryOwners; ++i) {
      std::fprintf(stderr, "%s %lld ", std::string(MemoryOwnerName(static_cast<MemoryOwner>(i))).c_str(),
                   static_cast<long long>(now.held[i]));
    }
    std::fprintf(stderr, "free %lld\n", static_cast<long long>(now.free));
  }
  return false;
}

}  // namespace salamander::testing
