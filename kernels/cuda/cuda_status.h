// CUDA's errors as Status, and what remains of them: after a fault of a kernel the device's context is lost, and every
// later call fails with the status that named the fault first.
#ifndef SALAMANDER_KERNELS_CUDA_CUDA_STATUS_H_
#define SALAMANDER_KERNELS_CUDA_CUDA_STATUS_H_

#include <cuda_runtime_api.h>

#include <array>
#include <atomic>
#include <mutex>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace salamander::kernels::cuda {

// OK for cudaSuccess, RESOURCE_EXHAUSTED for lack of memory, else INTERNAL: "cuda: what: CUDA's text". Clears CUDA's
// own record of the error.
absl::Status CudaStatus(cudaError_t error, absl::string_view what);

// Shared by one Ops, its copiers and its events. Any thread, but for Queued.
class FaultLatch {
 public:
  // CudaStatus, or the first fault if there has been one.
  absl::Status Check(cudaError_t error, absl::string_view what);
  // The first fault.
  absl::Status status() const;

  // Engine thread: `op` (a literal) is in the queue now; faults show later, so messages name the last ones queued.
  void Queued(const char* op);
  // All that was queued has ended well.
  void Settled() { queued_.store(0, std::memory_order_relaxed); }

 private:
  static constexpr size_t kNamed = 8;
  std::atomic<bool> failed_{false};
  std::array<std::atomic<const char*>, kNamed> last_{};
  std::atomic<size_t> queued_{0};
  mutable std::mutex mutex_;  // of what follows
  absl::Status status_;
};

}  // namespace salamander::kernels::cuda

#endif  // SALAMANDER_KERNELS_CUDA_CUDA_STATUS_H_
