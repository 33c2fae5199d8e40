#include "kernels/cuda/list_ring.h"

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"

namespace salamander::kernels::cuda {

absl::StatusOr<std::unique_ptr<ListRing>> ListRing::Create(void* device, cudaStream_t stream,
                                                           std::shared_ptr<FaultLatch> faults) {
  std::unique_ptr<ListRing> ring(new ListRing(device, stream, std::move(faults)));
  ASSIGN_OR_RETURN(ring->host_, AllocatePinned(kBytes));
  for (cudaEvent_t& event : ring->sent_) {
    RETURN_IF_ERROR(CudaStatus(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "create an event"));
  }
  return ring;
}

ListRing::~ListRing() {
  for (cudaEvent_t event : sent_) {
    if (event == nullptr) continue;
    cudaEventSynchronize(event);
    cudaEventDestroy(event);
  }
}

absl::StatusOr<ListSlot> ListRing::Take(int64_t bytes) {
  const int64_t taken = AlignedListBytes(bytes);
  if (taken > kSegmentBytes) {
    return absl::ResourceExhaustedError(
        absl::StrCat("a list of ", bytes, " bytes, one op takes at most ", kSegmentBytes));
  }
  if (used_ + taken > kSegmentBytes) {
    RETURN_IF_ERROR(faults_->Check(cudaEventRecord(sent_[segment_], stream_), "copy a list"));
    segment_ = (segment_ + 1) % kSegments;
    used_ = 0;
    RETURN_IF_ERROR(faults_->Check(cudaEventSynchronize(sent_[segment_]), "copy a list"));
  }
  const int64_t at = segment_ * kSegmentBytes + used_;
  used_ += taken;
  return ListSlot{host_.get() + at, device_ + at};
}

absl::Status ListRing::Send(const ListSlot& slot, int64_t bytes) {
  return faults_->Check(cudaMemcpyAsync(slot.device, slot.host, bytes, cudaMemcpyHostToDevice, stream_), "copy a list");
}

}  // namespace salamander::kernels::cuda
