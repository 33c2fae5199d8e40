// What threads beside the engine's use: copies on a stream of their own, and moments of the ops' stream.
#ifndef SALAMANDER_KERNELS_CUDA_CUDA_COPIER_H_
#define SALAMANDER_KERNELS_CUDA_CUDA_COPIER_H_

#include <cuda_runtime_api.h>

#include <cstdint>
#include <memory>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/cuda/cuda_status.h"
#include "kernels/cuda/staged_copy.h"
#include "kernels/ops.h"

namespace salamander::kernels::cuda {

// Each call sets the device first: on a new thread, CUDA would make itself at home on device 0.
class CudaEvent : public Event {
 public:
  // Of all that is in `stream` of `device` now.
  static std::shared_ptr<Event> Record(int device, cudaStream_t stream, std::shared_ptr<FaultLatch> faults);
  ~CudaEvent() override;

  absl::Status Wait() override;
  bool Done() override;

 private:
  CudaEvent(int device, std::shared_ptr<FaultLatch> faults) : device_(device), faults_(std::move(faults)) {}

  int device_;
  std::shared_ptr<FaultLatch> faults_;
  uint64_t ops_before_ = 0;  // queued
  absl::Status recorded_;
  cudaEvent_t event_ = nullptr;
};

class CudaCopier : public Copier {
 public:
  static absl::StatusOr<std::unique_ptr<Copier>> Create(int device, std::shared_ptr<FaultLatch> faults);
  ~CudaCopier() override;

  absl::Status ToHost(void* to_host, const void* from, int64_t bytes) override;
  absl::Status ToDevice(void* to, const void* from_host, int64_t bytes) override;
  absl::Status OnDevice(void* to, const void* from, int64_t bytes) override;
  // Sleeps until the stream is empty.
  absl::Status Wait() override;

 private:
  CudaCopier(int device, std::shared_ptr<FaultLatch> faults) : device_(device), faults_(std::move(faults)) {}
  // Lets this device read the pool of another, where the two are connected.
  absl::Status OpenPeer(int peer);

  int device_;
  std::shared_ptr<FaultLatch> faults_;
  cudaStream_t stream_ = nullptr;
  cudaEvent_t finished_ = nullptr;
  std::unique_ptr<StagedCopy> staged_;
  int open_peer_ = -1;
};

}  // namespace salamander::kernels::cuda

#endif  // SALAMANDER_KERNELS_CUDA_CUDA_COPIER_H_
