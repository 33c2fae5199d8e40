#include "kernels/cuda/op_timer.h"

namespace salamander::kernels::cuda {

// Failures of events only make a time wrong or zero; the device's own failures show at the ops.

OpTimer::~OpTimer() {
  for (const Timed& timed : timed_) {
    cudaEventDestroy(timed.start);
    cudaEventDestroy(timed.stop);
  }
}

void OpTimer::Start(OpKind kind, cudaStream_t stream) {
  if (used_ == timed_.size()) {
    Timed& added = timed_.emplace_back();
    cudaEventCreate(&added.start);
    cudaEventCreate(&added.stop);
  }
  timed_[used_].kind = kind;
  cudaEventRecord(timed_[used_].start, stream);
}

void OpTimer::Stop(cudaStream_t stream) { cudaEventRecord(timed_[used_++].stop, stream); }

void OpTimer::Collect() {
  std::lock_guard lock(mutex_);
  for (size_t i = 0; i < used_; ++i) {
    float milliseconds = 0;
    if (cudaEventElapsedTime(&milliseconds, timed_[i].start, timed_[i].stop) != cudaSuccess) continue;
    seconds_[static_cast<size_t>(timed_[i].kind)] += 1e-3 * milliseconds;
  }
  used_ = 0;
}

std::vector<std::pair<std::string, double>> OpTimer::Seconds() const {
  std::lock_guard lock(mutex_);
  std::vector<std::pair<std::string, double>> out;
  for (size_t i = 0; i < kOpKinds; ++i) out.emplace_back(OpName(static_cast<OpKind>(i)), seconds_[i]);
  return out;
}

}  // namespace salamander::kernels::cuda
