#include "kernels/cuda/device_memory.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"

namespace salamander::kernels::cuda {

absl::StatusOr<std::unique_ptr<DeviceMemory>> DeviceMemory::Create(int device, cudaStream_t stream,
                                                                   std::shared_ptr<FaultLatch> faults) {
  std::unique_ptr<DeviceMemory> memory(new DeviceMemory(stream, std::move(faults)));
  RETURN_IF_ERROR(CudaStatus(cudaStreamCreateWithFlags(&memory->stream_, cudaStreamNonBlocking), "create a stream"));
  // The device's default pool: several Ops of a process give each other what they do not use.
  RETURN_IF_ERROR(CudaStatus(cudaDeviceGetDefaultMemPool(&memory->pool_, device), "memory pool of the device"));
  uint64_t keep_all = std::numeric_limits<uint64_t>::max();
  RETURN_IF_ERROR(
      CudaStatus(cudaMemPoolSetAttribute(memory->pool_, cudaMemPoolAttrReleaseThreshold, &keep_all), "memory pool"));
  int no = 0;
  RETURN_IF_ERROR(CudaStatus(cudaMemPoolSetAttribute(memory->pool_, cudaMemPoolReuseAllowInternalDependencies, &no),
                             "memory pool"));
  return memory;
}

DeviceMemory::~DeviceMemory() {
  for (const auto& [memory, bytes] : bytes_of_) cudaFreeAsync(memory, ops_stream_);
  if (stream_ != nullptr) cudaStreamDestroy(stream_);
}

absl::StatusOr<void*> DeviceMemory::Allocate(int64_t bytes) {
  const int64_t wanted = (std::max<int64_t>(bytes, 1) + kAlignment - 1) / kAlignment * kAlignment;
  void* memory = nullptr;
  cudaError_t error = cudaMallocFromPoolAsync(&memory, wanted, pool_, stream_);
  if (error == cudaErrorMemoryAllocation) {
    // Once more when all frees have come to pass and the pool has given back what does not fit together.
    cudaGetLastError();
    RETURN_IF_ERROR(faults_->Check(cudaStreamSynchronize(ops_stream_), "allocate"));
    RETURN_IF_ERROR(faults_->Check(cudaMemPoolTrimTo(pool_, 0), "allocate"));
    error = cudaMallocFromPoolAsync(&memory, wanted, pool_, stream_);
  }
  if (error == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    size_t free = 0, total = 0;
    RETURN_IF_ERROR(faults_->Check(cudaMemGetInfo(&free, &total), "allocate"));
    return absl::ResourceExhaustedError(
        absl::StrCat("cuda: no ", bytes, " bytes of device memory, ", free, " are free of ", total));
  }
  RETURN_IF_ERROR(faults_->Check(error, "allocate"));
  RETURN_IF_ERROR(faults_->Check(cudaStreamSynchronize(stream_), "allocate"));
  bytes_of_[memory] = wanted;
  return memory;
}

int64_t DeviceMemory::BytesOf(void* memory) const {
  const auto found = bytes_of_.find(memory);
  return found == bytes_of_.end() ? 0 : found->second;
}

void DeviceMemory::Free(void* memory) {
  if (bytes_of_.erase(memory) == 0) return;
  // Nobody is told of a failure: the device is lost then, and the next op says so.
  (void)faults_->Check(cudaFreeAsync(memory, ops_stream_), "free");
}

absl::Status DeviceMemory::Zero(void* memory, int64_t bytes) {
  RETURN_IF_ERROR(faults_->Check(cudaMemsetAsync(memory, 0, bytes, stream_), "zero"));
  return faults_->Check(cudaStreamSynchronize(stream_), "zero");
}

absl::StatusOr<int64_t> DeviceMemory::FreeBytes() const {
  size_t free = 0, total = 0;
  uint64_t reserved = 0, used = 0;
  RETURN_IF_ERROR(faults_->Check(cudaMemGetInfo(&free, &total), "memory of the device"));
  RETURN_IF_ERROR(
      faults_->Check(cudaMemPoolGetAttribute(pool_, cudaMemPoolAttrReservedMemCurrent, &reserved), "memory pool"));
  RETURN_IF_ERROR(faults_->Check(cudaMemPoolGetAttribute(pool_, cudaMemPoolAttrUsedMemCurrent, &used), "memory pool"));
  return static_cast<int64_t>(free + reserved - used);
}

absl::StatusOr<PinnedMemory> AllocatePinned(int64_t bytes) {
  void* memory = nullptr;
  const cudaError_t error = cudaHostAlloc(&memory, std::max<int64_t>(bytes, 1), cudaHostAllocPortable);
  RETURN_IF_ERROR(CudaStatus(error, absl::StrCat("pinned host memory of ", bytes, " bytes")));
  return PinnedMemory(static_cast<std::byte*>(memory));
}

}  // namespace salamander::kernels::cuda
