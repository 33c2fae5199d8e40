// Repeats (ops.h) as CUDA graphs.
//
// Of each key the first run is queued op by op, as ever: libraries choose their kernels and modules are loaded. The
// second is captured into a graph, and that and every later run is one copy of all lists and one launch of the graph.
// While it replays, an op does no more than check that it is the one recorded and write its list to the place that the
// recorded kernel reads. The pinned half of that place exists twice, since the copy before may still be reading.
#ifndef SALAMANDER_KERNELS_CUDA_REPEATS_H_
#define SALAMANDER_KERNELS_CUDA_REPEATS_H_

#include <cuda_runtime_api.h>

#include <array>
#include <bit>
#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/cuda/cuda_status.h"
#include "kernels/cuda/device_memory.h"
#include "kernels/cuda/list_ring.h"
#include "kernels/op_kind.h"
#include "kernels/ops.h"

namespace salamander::kernels::cuda {

// What a graph bakes in of one op: everything but the contents of lists.
class OpSignature {
 public:
  template <typename... Args>
  explicit OpSignature(OpKind kind, const Args&... args) : kind_(kind) {
    (Add(args), ...);
  }
  OpKind kind() const { return kind_; }
  bool operator==(const OpSignature& other) const { return kind_ == other.kind_ && digest_ == other.digest_; }
  absl::Span<const void* const> buffers() const { return {buffers_.data(), static_cast<size_t>(buffer_count_)}; }

 private:
  static constexpr int kMaxBuffers = 8;

  void Mix(uint64_t word) {
    // FNV-1a (Fowler, Noll, Vo) on words, with the high half folded in.
    digest_ = (digest_ ^ word) * 0x100000001b3u;
    digest_ ^= digest_ >> 32;
  }
  template <typename T>
  void Add(const T& value) {
    if constexpr (std::is_pointer_v<T>) {
      buffers_[buffer_count_++] = value;
      Mix(reinterpret_cast<uintptr_t>(value));
    } else if constexpr (std::is_same_v<T, float>) {
      Mix(std::bit_cast<uint32_t>(value));
    } else if constexpr (std::is_same_v<T, Matrix>) {
      Add(static_cast<const void*>(value.data));
      Mix(value.rows);
      Mix(value.cols);
      Mix(value.stride);
    } else {
      Mix(static_cast<uint64_t>(value));
    }
  }

  OpKind kind_;
  uint64_t digest_ = 0xcbf29ce484222325u;
  std::array<const void*, kMaxBuffers> buffers_{};
  int buffer_count_ = 0;
};

// Engine thread only.
class Repeats {
 public:
  // A graph takes some megabytes of the device; the key used least recently gives way.
  static constexpr size_t kMaxKeys = 32;

  Repeats(DeviceMemory& memory, cudaStream_t stream, std::shared_ptr<FaultLatch> faults)
      : memory_(memory), stream_(stream), faults_(std::move(faults)) {}
  ~Repeats();
  Repeats(const Repeats&) = delete;

  // With `record` false the run is queued op by op, whatever there is recorded.
  absl::Status Begin(const RepeatKey& key, bool record);
  // Launches the run if it was recorded. After a failure in between it gives the run up and returns the failure.
  absl::Status End();
  bool active() const { return active_ != nullptr; }
  bool capturing() const { return active_ != nullptr && phase_ == Phase::kCapture; }
  const RepeatKey& key() const { return active_->key; }

  // While active, in this order for each op. Whether the op is to be launched; INTERNAL naming the op if another was
  // recorded in its place.
  absl::StatusOr<bool> NextOp(const OpSignature& op);
  // A place for a list of the op; without a device half if the list must go by a ListRing.
  absl::StatusOr<ListSlot> TakeList(int64_t bytes);
  // The op failed: the run is given up.
  void Fail(const absl::Status& status);

  // Forgets what uses a buffer in these bytes.
  void Forget(const void* memory, int64_t bytes);
  // Device memory for lists.
  int64_t bytes() const { return bytes_; }

 private:
  enum class Phase { kFirst, kCapture, kReplay, kUnrecorded };
  struct Repeat {
    RepeatKey key;
    bool ran = false;        // op by op
    bool recordable = true;  // no capture has failed
    int64_t list_bytes = 0;  // of a run
    std::vector<OpSignature> ops;
    std::set<const void*> buffers;  // of all ops
    cudaGraphExec_t graph = nullptr;
    std::byte* device_lists = nullptr;
    std::array<PinnedMemory, 2> host_lists;
    std::array<cudaEvent_t, 2> sent{};
    int turn = 0;
    int64_t last_used = 0;
  };

  Repeat& Find(const RepeatKey& key);
  void Drop(Repeat& repeat);
  absl::Status BeginCapture(Repeat& repeat);
  absl::Status EndCapture(Repeat& repeat);
  absl::Status Launch(Repeat& repeat);
  absl::Status Finish(Repeat& repeat);
  std::string Name(const Repeat& repeat) const;

  DeviceMemory& memory_;
  cudaStream_t stream_;
  std::shared_ptr<FaultLatch> faults_;
  std::map<RepeatKey, Repeat> repeats_;
  int64_t bytes_ = 0;
  int64_t uses_ = 0;
  // Of the run that is under way.
  Repeat* active_ = nullptr;
  Phase phase_ = Phase::kFirst;
  size_t op_ = 0;
  int64_t list_bytes_ = 0;
  absl::Status failure_;
};

}  // namespace salamander::kernels::cuda

#endif  // SALAMANDER_KERNELS_CUDA_REPEATS_H_
