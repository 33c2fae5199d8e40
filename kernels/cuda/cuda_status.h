// CUDA's errors as Status, and what remains of them: after a fault of a kernel the device's context is lost to the
// whole process, and every later call fails with the status that named the fault first.
#ifndef SALAMANDER_KERNELS_CUDA_CUDA_STATUS_H_
#define SALAMANDER_KERNELS_CUDA_CUDA_STATUS_H_

#include <cuda_runtime_api.h>

#include <array>
#include <atomic>
#include <cstdint>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "kernels/op_kind.h"

namespace salamander::kernels::cuda {

// OK for cudaSuccess, RESOURCE_EXHAUSTED for lack of memory, else INTERNAL: "cuda: what: CUDA's text". Clears CUDA's
// own record of the error.
absl::Status CudaStatus(cudaError_t error, absl::string_view what);

struct DeviceFault;

// Shared by one Ops, its copiers and its events. Whichever meets a fault of the device first, all latches of that
// device tell the same. Any thread, but for Queued.
class FaultLatch {
 public:
  explicit FaultLatch(int device);
  ~FaultLatch();
  FaultLatch(const FaultLatch&) = delete;

  // CudaStatus, or the first fault if there has been one. A fault shows only after its op was queued, so its message
  // names all ops that may be the one: those not known to have ended well, of every latch of the device.
  absl::Status Check(cudaError_t error, absl::string_view what);
  // The first fault.
  absl::Status status() const;

  // Engine thread: an op is in the queue now.
  void Queued(OpKind op);
  // Of ops, so far.
  uint64_t queued() const { return queued_.load(std::memory_order_relaxed); }
  // The first `count` ops that were queued have ended well.
  void Settle(uint64_t count);

 private:
  DeviceFault& fault_;
  std::array<std::atomic<uint64_t>, kOpKinds> last_{};  // number of the last op of each kind, from 1
  std::atomic<uint64_t> queued_{0}, settled_{0};
};

}  // namespace salamander::kernels::cuda

#endif  // SALAMANDER_KERNELS_CUDA_CUDA_STATUS_H_
