// Real workers in one process over the fake network, with the router played by the test.
#ifndef SALAMANDER_TESTS_COMMON_WORKER_PLAYED_CLUSTER_H_
#define SALAMANDER_TESTS_COMMON_WORKER_PLAYED_CLUSTER_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/memory_ledger.h"
#include "common/model/safetensors.h"
#include "common/transport/fake_transport.h"
#include "decode_worker/decode_worker.h"
#include "prefill_worker/prefill_worker.h"
#include "tests/common/worker/played_request.h"
#include "tests/common/worker/played_router.h"

namespace salamander::testing {

struct PlayedClusterOptions {
  std::string golden = "dense";
  int prefill_workers = 2;
  int max_active_spans = 2;
  int64_t max_batch = 8;
  int64_t memory_bytes = 128 << 20;
  double missing_item_seconds = 5;
  std::string capture_dir;
  bool metrics = false;
  transport::FakeFaults faults;
};

class PlayedCluster {
 public:
  // Aborts if it cannot be started. All workers are ready when it returns.
  explicit PlayedCluster(const PlayedClusterOptions& options);
  ~PlayedCluster();

  std::vector<int32_t> prompt() const { return Ints("prompt"); }
  std::vector<int32_t> continuation() const { return Ints("continuation"); }
  const model::SafetensorsFile& golden() const { return *golden_; }

  // A request for the golden prompt on all prefill workers, if the spec has none.
  std::unique_ptr<PlayedRequest> Request(PlayedSpec spec = {});
  // All at once: reserve, start, wait.
  absl::Status Run(PlayedRequest& request);

  // Nothing but weights and workspace is held on any worker, to the byte; waits up to 20 s for that.
  bool MemoryIsBack();

  transport::FakeNetwork& network() { return network_; }
  PlayedRouter& router() { return router_; }
  std::vector<std::unique_ptr<worker::Worker>>& prefill() { return prefill_; }
  std::unique_ptr<worker::Worker>& decode() { return decode_; }
  static std::string PrefillName(int index) { return absl::StrCat("p", index); }

 private:
  std::vector<int32_t> Ints(const std::string& tensor) const;
  std::vector<MemoryLedger::Snapshot> Memory() const;

  transport::FakeNetwork network_;
  PlayedRouter router_;
  std::unique_ptr<model::SafetensorsFile> golden_;
  std::vector<std::unique_ptr<worker::Worker>> prefill_;
  std::unique_ptr<worker::Worker> decode_;
  std::vector<v1::WorkerHello> prefill_hellos_;
  v1::WorkerHello decode_hello_;
};

}  // namespace salamander::testing

#endif  // SALAMANDER_TESTS_COMMON_WORKER_PLAYED_CLUSTER_H_
