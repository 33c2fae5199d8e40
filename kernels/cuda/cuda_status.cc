#include "kernels/cuda/cuda_status.h"

#include <algorithm>
#include <map>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

namespace salamander::kernels::cuda {

// What a process knows of one device.
struct DeviceFault {
  std::atomic<bool> failed{false};
  std::mutex mutex;  // of what follows
  std::vector<const FaultLatch*> latches;
  absl::Status status;
};

namespace {

// Never destroyed: latches may live as long as the process.
DeviceFault& FaultOf(int device) {
  static auto* const mutex = new std::mutex;
  static auto* const faults = new std::map<int, DeviceFault>;
  std::lock_guard lock(*mutex);
  return (*faults)[device];
}

// After these the process's context on the device is of no use any more (CUDA Runtime API, cudaError_t).
bool IsFault(cudaError_t error) {
  switch (error) {
    case cudaErrorIllegalAddress:
    case cudaErrorMisalignedAddress:
    case cudaErrorInvalidAddressSpace:
    case cudaErrorInvalidPc:
    case cudaErrorIllegalInstruction:
    case cudaErrorHardwareStackError:
    case cudaErrorLaunchFailure:
    case cudaErrorLaunchTimeout:
    case cudaErrorAssert:
    case cudaErrorECCUncorrectable:
    case cudaErrorNvlinkUncorrectable:
    case cudaErrorUnknown:
      return true;
    default:
      return false;
  }
}

}  // namespace

absl::Status CudaStatus(cudaError_t error, absl::string_view what) {
  if (error == cudaSuccess) return absl::OkStatus();
  cudaGetLastError();
  const std::string message = absl::StrCat("cuda: ", what, ": ", cudaGetErrorString(error));
  return error == cudaErrorMemoryAllocation ? absl::ResourceExhaustedError(message) : absl::InternalError(message);
}

FaultLatch::FaultLatch(int device) : fault_(FaultOf(device)) {
  std::lock_guard lock(fault_.mutex);
  fault_.latches.push_back(this);
}

FaultLatch::~FaultLatch() {
  std::lock_guard lock(fault_.mutex);
  std::erase(fault_.latches, this);
}

absl::Status FaultLatch::Check(cudaError_t error, absl::string_view what) {
  if (error == cudaSuccess) return status();
  absl::Status status = CudaStatus(error, what);
  if (!IsFault(error)) return status;
  std::lock_guard lock(fault_.mutex);
  if (!fault_.status.ok()) return fault_.status;
  std::string names;
  for (const FaultLatch* latch : fault_.latches) {
    std::vector<std::pair<uint64_t, OpKind>> ops;
    for (size_t i = 0; i < kOpKinds; ++i) {
      const uint64_t number = latch->last_[i].load(std::memory_order_relaxed);
      if (number > latch->settled_.load(std::memory_order_relaxed)) ops.emplace_back(number, static_cast<OpKind>(i));
    }
    std::sort(ops.begin(), ops.end());
    for (const auto& [number, op] : ops) absl::StrAppend(&names, names.empty() ? "" : ", ", OpName(op));
  }
  fault_.status = absl::InternalError(names.empty() ? std::string(status.message())
                                                    : absl::StrCat(status.message(), "; ops under way: ", names));
  fault_.failed.store(true, std::memory_order_release);
  return fault_.status;
}

absl::Status FaultLatch::status() const {
  if (!fault_.failed.load(std::memory_order_acquire)) return absl::OkStatus();
  std::lock_guard lock(fault_.mutex);
  return fault_.status;
}

void FaultLatch::Queued(OpKind op) {
  const uint64_t number = queued_.load(std::memory_order_relaxed) + 1;
  last_[static_cast<size_t>(op)].store(number, std::memory_order_relaxed);
  queued_.store(number, std::memory_order_relaxed);
}

void FaultLatch::Settle(uint64_t count) {
  uint64_t settled = settled_.load(std::memory_order_relaxed);
  while (settled < count && !settled_.compare_exchange_weak(settled, count, std::memory_order_relaxed)) {
  }
}

}  // namespace salamander::kernels::cuda
