// Device memory from CUDA's stream-ordered pool.
//
// Memory is freed in the order of the ops' stream, and allocated on a stream of its own where nothing else waits: it is
// there when Allocate returns, for any stream, and a free never waits for the queue. The pool gives memory out again
// only when its free has really come to pass, never by a dependency on the ops' stream.
#ifndef SALAMANDER_KERNELS_CUDA_DEVICE_MEMORY_H_
#define SALAMANDER_KERNELS_CUDA_DEVICE_MEMORY_H_

#include <cuda_runtime_api.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/cuda/cuda_status.h"

namespace salamander::kernels::cuda {

inline constexpr int64_t kAlignment = 256;

// Engine thread only.
class DeviceMemory {
 public:
  // `stream` is the ops'.
  static absl::StatusOr<std::unique_ptr<DeviceMemory>> Create(int device, cudaStream_t stream,
                                                              std::shared_ptr<FaultLatch> faults);
  // Frees what is left.
  ~DeviceMemory();
  DeviceMemory(const DeviceMemory&) = delete;

  // RESOURCE_EXHAUSTED naming what was wanted and what there is.
  absl::StatusOr<void*> Allocate(int64_t bytes);
  void Free(void* memory);
  // What Allocate took for it; 0 for what is not of Allocate.
  int64_t BytesOf(void* memory) const;
  absl::Status Zero(void* memory, int64_t bytes);
  // What the device has free, and what the pool keeps for this process.
  absl::StatusOr<int64_t> FreeBytes() const;

 private:
  DeviceMemory(cudaStream_t stream, std::shared_ptr<FaultLatch> faults)
      : ops_stream_(stream), faults_(std::move(faults)) {}

  cudaStream_t ops_stream_;
  std::shared_ptr<FaultLatch> faults_;
  cudaStream_t stream_ = nullptr;
  cudaMemPool_t pool_ = nullptr;
  std::map<void*, int64_t> bytes_of_;
};

// Pinned host memory.
struct FreePinned {
  void operator()(void* memory) const { cudaFreeHost(memory); }
};
using PinnedMemory = std::unique_ptr<std::byte, FreePinned>;
absl::StatusOr<PinnedMemory> AllocatePinned(int64_t bytes);

}  // namespace salamander::kernels::cuda

#endif  // SALAMANDER_KERNELS_CUDA_DEVICE_MEMORY_H_
