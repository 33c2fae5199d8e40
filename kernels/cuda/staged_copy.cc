#include "kernels/cuda/staged_copy.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "common/base/status_macros.h"

namespace salamander::kernels::cuda {
namespace {

bool IsPinned(const void* host) {
  cudaPointerAttributes attributes;
  if (cudaPointerGetAttributes(&attributes, host) == cudaSuccess) return attributes.type == cudaMemoryTypeHost;
  cudaGetLastError();
  return false;
}

}  // namespace

absl::StatusOr<std::unique_ptr<StagedCopy>> StagedCopy::Create(cudaStream_t stream,
                                                               std::shared_ptr<FaultLatch> faults) {
  std::unique_ptr<StagedCopy> copy(new StagedCopy(stream, std::move(faults)));
  for (Piece& piece : copy->pieces_) {
    ASSIGN_OR_RETURN(piece.memory, AllocatePinned(kPieceBytes));
    RETURN_IF_ERROR(CudaStatus(cudaEventCreateWithFlags(&piece.copied, cudaEventDisableTiming), "create an event"));
  }
  return copy;
}

StagedCopy::~StagedCopy() {
  for (Piece& piece : pieces_) {
    if (piece.copied == nullptr) continue;
    cudaEventSynchronize(piece.copied);
    cudaEventDestroy(piece.copied);
  }
}

absl::Status StagedCopy::ToDevice(void* to, const void* from_host, int64_t bytes) {
  if (IsPinned(from_host)) {
    return faults_->Check(cudaMemcpyAsync(to, from_host, bytes, cudaMemcpyHostToDevice, stream_), "copy to device");
  }
  return ToDevice(to, bytes, [from_host](void* piece, int64_t begin, int64_t count) {
    std::memcpy(piece, static_cast<const std::byte*>(from_host) + begin, count);
  });
}

absl::Status StagedCopy::ToDevice(void* to, int64_t bytes,
                                  absl::FunctionRef<void(void* piece, int64_t begin, int64_t count)> fill) {
  for (int64_t begin = 0; begin < bytes; begin += kPieceBytes) {
    const Piece& piece = pieces_[begin / kPieceBytes % 2];
    const int64_t count = std::min(kPieceBytes, bytes - begin);
    RETURN_IF_ERROR(faults_->Check(cudaEventSynchronize(piece.copied), "copy to device"));
    fill(piece.memory.get(), begin, count);
    RETURN_IF_ERROR(faults_->Check(cudaMemcpyAsync(static_cast<std::byte*>(to) + begin, piece.memory.get(), count,
                                                   cudaMemcpyHostToDevice, stream_),
                                   "copy to device"));
    RETURN_IF_ERROR(faults_->Check(cudaEventRecord(piece.copied, stream_), "copy to device"));
  }
  return absl::OkStatus();
}

absl::Status StagedCopy::ToHost(void* to_host, const void* from, int64_t bytes) {
  if (IsPinned(to_host)) {
    return faults_->Check(cudaMemcpyAsync(to_host, from, bytes, cudaMemcpyDeviceToHost, stream_), "copy to host");
  }
  const int64_t count = (bytes + kPieceBytes - 1) / kPieceBytes;
  auto size_of = [&](int64_t i) { return std::min(kPieceBytes, bytes - i * kPieceBytes); };
  // Piece i leaves the device while piece i - 1 is copied on.
  for (int64_t i = 0; i <= count; ++i) {
    if (i < count) {
      const Piece& piece = pieces_[i % 2];
      RETURN_IF_ERROR(faults_->Check(cudaEventSynchronize(piece.copied), "copy to host"));
      RETURN_IF_ERROR(
          faults_->Check(cudaMemcpyAsync(piece.memory.get(), static_cast<const std::byte*>(from) + i * kPieceBytes,
                                         size_of(i), cudaMemcpyDeviceToHost, stream_),
                         "copy to host"));
      RETURN_IF_ERROR(faults_->Check(cudaEventRecord(piece.copied, stream_), "copy to host"));
    }
    if (i > 0) {
      const Piece& piece = pieces_[(i - 1) % 2];
      RETURN_IF_ERROR(faults_->Check(cudaEventSynchronize(piece.copied), "copy to host"));
      std::memcpy(static_cast<std::byte*>(to_host) + (i - 1) * kPieceBytes, piece.memory.get(), size_of(i - 1));
    }
  }
  return absl::OkStatus();
}

}  // namespace salamander::kernels::cuda
