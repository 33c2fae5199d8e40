// Lists of the host (tokens, positions, sequences) on their way to the kernels that read them.
#ifndef SALAMANDER_KERNELS_CUDA_LIST_RING_H_
#define SALAMANDER_KERNELS_CUDA_LIST_RING_H_

#include <cuda_runtime_api.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/cuda/cuda_status.h"
#include "kernels/cuda/device_memory.h"

namespace salamander::kernels::cuda {

// Where a list is written, and where kernels find it then.
struct ListSlot {
  std::byte* host = nullptr;
  std::byte* device = nullptr;
};
inline constexpr int64_t kListAlignment = 16;
constexpr int64_t AlignedListBytes(int64_t bytes) {
  return (bytes + kListAlignment - 1) / kListAlignment * kListAlignment;
}

// A ring of pinned memory and its mirror on the device, in segments. A segment's pinned half is written again when its
// copies have ended; the device's half needs no such care, since its next copy comes after its readers in the stream.
class ListRing {
 public:
  static constexpr int64_t kSegments = 4, kSegmentBytes = int64_t{1} << 20;
  static constexpr int64_t kBytes = kSegments * kSegmentBytes;

  // `device` are kBytes of device memory.
  static absl::StatusOr<std::unique_ptr<ListRing>> Create(void* device, cudaStream_t stream,
                                                          std::shared_ptr<FaultLatch> faults);
  ~ListRing();
  ListRing(const ListRing&) = delete;

  // A place for a list of at most kSegmentBytes, until the next Take.
  absl::StatusOr<ListSlot> Take(int64_t bytes);
  // Sends what was written to the slot on its way.
  absl::Status Send(const ListSlot& slot, int64_t bytes);

 private:
  ListRing(void* device, cudaStream_t stream, std::shared_ptr<FaultLatch> faults)
      : device_(static_cast<std::byte*>(device)), stream_(stream), faults_(std::move(faults)) {}

  std::byte* device_;
  cudaStream_t stream_;
  std::shared_ptr<FaultLatch> faults_;
  PinnedMemory host_;
  std::array<cudaEvent_t, kSegments> sent_{};  // the last copy out of each segment
  int64_t segment_ = 0, used_ = 0;
};

}  // namespace salamander::kernels::cuda

#endif  // SALAMANDER_KERNELS_CUDA_LIST_RING_H_
