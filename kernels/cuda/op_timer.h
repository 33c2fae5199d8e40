// Device time per kind of operation, by events around each. Off at first: two events an op cost the host some
// microseconds.
#ifndef SALAMANDER_KERNELS_CUDA_OP_TIMER_H_
#define SALAMANDER_KERNELS_CUDA_OP_TIMER_H_

#include <cuda_runtime_api.h>

#include <array>
#include <atomic>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "kernels/op_kind.h"

namespace salamander::kernels::cuda {

// Engine thread only, but for Seconds and SetOn.
class OpTimer {
 public:
  ~OpTimer();

  void SetOn(bool on) { on_.store(on, std::memory_order_relaxed); }
  bool on() const { return on_.load(std::memory_order_relaxed); }
  // Around the launches of an op, if on.
  void Start(OpKind kind, cudaStream_t stream);
  void Stop(cudaStream_t stream);
  // The stream is empty: counts what was timed.
  void Collect();
  std::vector<std::pair<std::string, double>> Seconds() const;

 private:
  struct Timed {
    OpKind kind;
    cudaEvent_t start = nullptr, stop = nullptr;
  };
  std::atomic<bool> on_{false};
  std::vector<Timed> timed_;  // [0, used_) are to be counted, the others' events serve again
  size_t used_ = 0;
  mutable std::mutex mutex_;  // of what follows
  std::array<double, kOpKinds> seconds_{};
};

}  // namespace salamander::kernels::cuda

#endif  // SALAMANDER_KERNELS_CUDA_OP_TIMER_H_
