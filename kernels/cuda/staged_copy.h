// Copies between device and host memory of any kind. The device copies fast, and beside the host, only from and to
// pinned memory; what is not pinned goes through two pinned pieces, one being filled or read while the other is copied.
#ifndef SALAMANDER_KERNELS_CUDA_STAGED_COPY_H_
#define SALAMANDER_KERNELS_CUDA_STAGED_COPY_H_

#include <cuda_runtime_api.h>

#include <cstdint>
#include <memory>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/cuda/cuda_status.h"
#include "kernels/cuda/device_memory.h"

namespace salamander::kernels::cuda {

// One thread at a time, with the device's number set.
class StagedCopy {
 public:
  static constexpr int64_t kPieceBytes = int64_t{4} << 20;

  // Copies in the order of `stream`.
  static absl::StatusOr<std::unique_ptr<StagedCopy>> Create(cudaStream_t stream, std::shared_ptr<FaultLatch> faults);
  ~StagedCopy();
  StagedCopy(const StagedCopy&) = delete;

  // Returns when `from_host` may change, unless it is pinned: then when the stream has come past it.
  absl::Status ToDevice(void* to, const void* from_host, int64_t bytes);
  // The same with bytes [begin, begin + count) as `fill` writes them into pinned memory.
  absl::Status ToDevice(void* to, int64_t bytes,
                        absl::FunctionRef<void(void* piece, int64_t begin, int64_t count)> fill);
  // Returns when `to_host` is filled, unless it is pinned: then it is when the stream has come past it.
  absl::Status ToHost(void* to_host, const void* from, int64_t bytes);

 private:
  StagedCopy(cudaStream_t stream, std::shared_ptr<FaultLatch> faults) : stream_(stream), faults_(std::move(faults)) {}

  struct Piece {
    PinnedMemory memory;
    cudaEvent_t copied = nullptr;
  };
  cudaStream_t stream_;
  std::shared_ptr<FaultLatch> faults_;
  Piece pieces_[2];
};

}  // namespace salamander::kernels::cuda

#endif  // SALAMANDER_KERNELS_CUDA_STAGED_COPY_H_
