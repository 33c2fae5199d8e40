#include "kernels/cuda/cuda_copier.h"

#include "common/base/status_macros.h"

namespace salamander::kernels::cuda {
namespace {

// Waiting for one sleeps, and leaves the processor to others.
constexpr unsigned kSleepingEvent = cudaEventBlockingSync | cudaEventDisableTiming;

}  // namespace

std::shared_ptr<Event> CudaEvent::Record(int device, cudaStream_t stream, std::shared_ptr<FaultLatch> faults) {
  std::shared_ptr<CudaEvent> event(new CudaEvent(device, std::move(faults)));
  event->ops_before_ = event->faults_->queued();
  cudaError_t error = cudaSetDevice(device);
  if (error == cudaSuccess) error = cudaEventCreateWithFlags(&event->event_, kSleepingEvent);
  if (error == cudaSuccess) error = cudaEventRecord(event->event_, stream);
  event->recorded_ = event->faults_->Check(error, "record an event");
  return event;
}

CudaEvent::~CudaEvent() {
  if (event_ == nullptr) return;
  cudaSetDevice(device_);
  cudaEventDestroy(event_);
}

absl::Status CudaEvent::Wait() {
  RETURN_IF_ERROR(recorded_);
  RETURN_IF_ERROR(faults_->Check(cudaSetDevice(device_), "wait for an event"));
  RETURN_IF_ERROR(faults_->Check(cudaEventSynchronize(event_), "wait for an event"));
  faults_->Settle(ops_before_);
  return absl::OkStatus();
}

bool CudaEvent::Done() {
  if (!recorded_.ok()) return true;
  cudaSetDevice(device_);
  if (cudaEventQuery(event_) != cudaErrorNotReady) return true;
  cudaGetLastError();  // "Not ready" is recorded like an error.
  return false;
}

absl::StatusOr<std::unique_ptr<Copier>> CudaCopier::Create(int device, std::shared_ptr<FaultLatch> faults) {
  RETURN_IF_ERROR(faults->Check(cudaSetDevice(device), "set the device"));
  std::unique_ptr<CudaCopier> copier(new CudaCopier(device, faults));
  RETURN_IF_ERROR(faults->Check(cudaStreamCreateWithFlags(&copier->stream_, cudaStreamNonBlocking), "create a stream"));
  RETURN_IF_ERROR(faults->Check(cudaEventCreateWithFlags(&copier->finished_, kSleepingEvent), "create an event"));
  ASSIGN_OR_RETURN(copier->staged_, StagedCopy::Create(copier->stream_, copier->faults_));
  return copier;
}

CudaCopier::~CudaCopier() {
  cudaSetDevice(device_);
  staged_.reset();
  if (finished_ != nullptr) cudaEventDestroy(finished_);
  if (stream_ != nullptr) cudaStreamDestroy(stream_);
}

absl::Status CudaCopier::Wait() {
  RETURN_IF_ERROR(faults_->Check(cudaSetDevice(device_), "wait for copies"));
  RETURN_IF_ERROR(faults_->Check(cudaEventRecord(finished_, stream_), "wait for copies"));
  return faults_->Check(cudaEventSynchronize(finished_), "wait for copies");
}

absl::Status CudaCopier::ToHost(void* to_host, const void* from, int64_t bytes) {
  if (bytes == 0) return absl::OkStatus();
  RETURN_IF_ERROR(faults_->Check(cudaSetDevice(device_), "copy to host"));
  return staged_->ToHost(to_host, from, bytes);
}

absl::Status CudaCopier::ToDevice(void* to, const void* from_host, int64_t bytes) {
  if (bytes == 0) return absl::OkStatus();
  RETURN_IF_ERROR(faults_->Check(cudaSetDevice(device_), "copy to device"));
  return staged_->ToDevice(to, from_host, bytes);
}

absl::Status CudaCopier::OnDevice(void* to, const void* from, int64_t bytes) {
  if (bytes == 0) return absl::OkStatus();
  RETURN_IF_ERROR(faults_->Check(cudaSetDevice(device_), "copy on device"));
  cudaPointerAttributes source;
  RETURN_IF_ERROR(faults_->Check(cudaPointerGetAttributes(&source, from), "copy on device"));
  if (source.device != device_ && source.device != open_peer_) RETURN_IF_ERROR(OpenPeer(source.device));
  return faults_->Check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, stream_), "copy on device");
}

absl::Status CudaCopier::OpenPeer(int peer) {
  open_peer_ = peer;
  int connected = 0;
  RETURN_IF_ERROR(faults_->Check(cudaDeviceCanAccessPeer(&connected, device_, peer), "copy between devices"));
  if (connected == 0) return absl::OkStatus();  // The driver takes the way through the host.
  cudaMemPool_t pool;
  RETURN_IF_ERROR(faults_->Check(cudaDeviceGetDefaultMemPool(&pool, peer), "copy between devices"));
  const cudaMemAccessDesc access = {{cudaMemLocationTypeDevice, device_}, cudaMemAccessFlagsProtReadWrite};
  return faults_->Check(cudaMemPoolSetAccess(pool, &access, 1), "copy between devices");
}

}  // namespace salamander::kernels::cuda
