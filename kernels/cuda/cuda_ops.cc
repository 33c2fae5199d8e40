// Life of the backend, memory, and how an op gets to the stream.
#include "kernels/cuda/cuda_ops.h"

#include <cstring>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "kernels/cuda/cuda_copier.h"

namespace salamander::kernels::cuda {
namespace {

// Copies up to this size do not wait for the copy before, as those of StagedCopy do.
constexpr int64_t kSmallCopyBytes = ListRing::kSegmentBytes / 2;

}  // namespace

absl::Status CudaOps::Initialize() {
  RETURN_IF_ERROR(CudaStatus(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "create a stream"));
  ASSIGN_OR_RETURN(memory_, DeviceMemory::Create(device_, stream_, faults_));
  ASSIGN_OR_RETURN(staged_, StagedCopy::Create(stream_, faults_));
  ASSIGN_OR_RETURN(matmul_, LtMatMul::Create());
  repeats_ = std::make_unique<Repeats>(*memory_, stream_, faults_);
  own_bytes_ = ListRing::kBytes + kWorkspaceBytes;
  ASSIGN_OR_RETURN(void* const lists, memory_->Allocate(ListRing::kBytes));
  ASSIGN_OR_RETURN(lists_, ListRing::Create(lists, stream_, faults_));
  ASSIGN_OR_RETURN(workspace_, memory_->Allocate(kWorkspaceBytes));
  return absl::OkStatus();
}

CudaOps::~CudaOps() {
  cudaSetDevice(device_);
  if (stream_ != nullptr) cudaStreamSynchronize(stream_);
  repeats_.reset();
  matmul_.reset();
  lists_.reset();
  staged_.reset();
  memory_.reset();
  if (stream_ != nullptr) cudaStreamDestroy(stream_);
}

absl::Status CudaOps::Enter() const {
  RETURN_IF_ERROR(faults_->status());
  return faults_->Check(cudaSetDevice(device_), "set the device");
}

absl::StatusOr<void*> CudaOps::Allocate(int64_t bytes) {
  RETURN_IF_ERROR(Enter());
  return memory_->Allocate(bytes);
}

void CudaOps::Free(void* memory) {
  // Also of a lost device: what this process knows of the memory goes with it.
  cudaSetDevice(device_);
  repeats_->Forget(memory, memory_->BytesOf(memory));
  memory_->Free(memory);
}

absl::Status CudaOps::CopyToDevice(void* to, const void* from_host, int64_t bytes) {
  RETURN_IF_ERROR(Enter());
  if (bytes > kSmallCopyBytes) return staged_->ToDevice(to, from_host, bytes);
  if (bytes == 0) return absl::OkStatus();
  ASSIGN_OR_RETURN(const ListSlot slot, lists_->Take(bytes));
  std::memcpy(slot.host, from_host, bytes);
  return lists_->Send({slot.host, static_cast<std::byte*>(to)}, bytes);
}

absl::Status CudaOps::CopyToHost(void* to_host, const void* from, int64_t bytes) {
  RETURN_IF_ERROR(Enter());
  return bytes == 0 ? absl::OkStatus() : staged_->ToHost(to_host, from, bytes);
}

absl::Status CudaOps::Zero(void* memory, int64_t bytes) {
  RETURN_IF_ERROR(Enter());
  return bytes == 0 ? absl::OkStatus() : memory_->Zero(memory, bytes);
}

absl::Status CudaOps::Synchronize() {
  RETURN_IF_ERROR(Enter());
  RETURN_IF_ERROR(faults_->Check(cudaStreamSynchronize(stream_), "synchronize"));
  faults_->Settle(faults_->queued());
  timer_.Collect();
  return absl::OkStatus();
}

absl::StatusOr<int64_t> CudaOps::MemoryBytes() {
  RETURN_IF_ERROR(Enter());
  return memory_->FreeBytes();
}

absl::StatusOr<void*> CudaOps::AllocateHost(int64_t bytes) {
  RETURN_IF_ERROR(Enter());
  ASSIGN_OR_RETURN(PinnedMemory memory, AllocatePinned(bytes));
  return memory.release();
}

void CudaOps::FreeHost(void* memory) {
  cudaSetDevice(device_);
  FreePinned()(memory);
}

std::shared_ptr<Event> CudaOps::Record() { return CudaEvent::Record(device_, stream_, faults_); }

absl::StatusOr<std::unique_ptr<Copier>> CudaOps::NewCopier() { return CudaCopier::Create(device_, faults_); }

absl::Status CudaOps::BeginRepeat(const RepeatKey& key) {
  RETURN_IF_ERROR(Enter());
  // A graph's ops cannot be timed apart.
  return repeats_->Begin(key, /*record=*/!timer_.on());
}

absl::Status CudaOps::EndRepeat() {
  // Also of a lost device: a run that began must end.
  cudaSetDevice(device_);
  return repeats_->End();
}

absl::Status CudaOps::Run(const OpSignature& op, HostList list,
                          absl::FunctionRef<absl::Status(const void* device_list)> launch) {
  return Note(RunChecked(op, list, launch));
}

absl::Status CudaOps::Note(absl::Status status) const {
  if (!status.ok() && repeats_->active()) repeats_->Fail(status);
  return status;
}

absl::Status CudaOps::RunChecked(const OpSignature& op, HostList list,
                                 absl::FunctionRef<absl::Status(const void* device_list)> launch) {
  RETURN_IF_ERROR(faults_->status());
  bool launched = true;
  if (repeats_->active()) {
    ASSIGN_OR_RETURN(launched, repeats_->NextOp(op));
  }
  if (launched) RETURN_IF_ERROR(Enter());  // A replayed op makes no call of CUDA.
  const absl::StatusOr<const void*> device_list = Upload(list);
  if (!device_list.ok()) return Annotate(device_list.status(), OpName(op.kind()));
  faults_->Queued(op.kind());
  if (!launched) return absl::OkStatus();
  const bool timed = timer_.on() && !repeats_->capturing();
  if (timed) timer_.Start(op.kind(), stream_);
  absl::Status status = launch(*device_list);
  if (timed) timer_.Stop(stream_);
  return status;
}

absl::Status CudaOps::Launch(const OpSignature& op, HostList list,
                             absl::FunctionRef<cudaError_t(const void* device_list)> launch) {
  return Run(op, list, [&](const void* device_list) { return faults_->Check(launch(device_list), OpName(op.kind())); });
}

absl::StatusOr<const void*> CudaOps::Upload(HostList list) {
  if (list.bytes == 0) return nullptr;
  if (repeats_->active()) {
    ASSIGN_OR_RETURN(const ListSlot slot, repeats_->TakeList(list.bytes));
    if (slot.host != nullptr) {
      std::memcpy(slot.host, list.data, list.bytes);
      return slot.device;
    }
  }
  ASSIGN_OR_RETURN(const ListSlot slot, lists_->Take(list.bytes));
  std::memcpy(slot.host, list.data, list.bytes);
  RETURN_IF_ERROR(lists_->Send(slot, list.bytes));
  return slot.device;
}

}  // namespace salamander::kernels::cuda
