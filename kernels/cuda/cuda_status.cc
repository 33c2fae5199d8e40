#include "kernels/cuda/cuda_status.h"

#include <algorithm>
#include <string>

#include "absl/strings/str_cat.h"

namespace salamander::kernels::cuda {
namespace {

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

absl::Status FaultLatch::Check(cudaError_t error, absl::string_view what) {
  if (error == cudaSuccess) return status();
  absl::Status status = CudaStatus(error, what);
  if (!IsFault(error)) return status;
  std::lock_guard lock(mutex_);
  if (!status_.ok()) return status_;
  const size_t queued = queued_.load(std::memory_order_relaxed);
  std::string names;
  for (size_t i = queued - std::min(queued, kNamed); i < queued; ++i) {
    absl::StrAppend(&names, names.empty() ? "; the last ops queued: " : ", ",
                    last_[i % kNamed].load(std::memory_order_relaxed));
  }
  status_ = absl::InternalError(absl::StrCat(status.message(), names));
  failed_.store(true, std::memory_order_release);
  return status_;
}

absl::Status FaultLatch::status() const {
  if (!failed_.load(std::memory_order_acquire)) return absl::OkStatus();
  std::lock_guard lock(mutex_);
  return status_;
}

void FaultLatch::Queued(const char* op) {
  const size_t i = queued_.load(std::memory_order_relaxed);
  last_[i % kNamed].store(op, std::memory_order_relaxed);
  queued_.store(i + 1, std::memory_order_relaxed);
}

}  // namespace salamander::kernels::cuda
