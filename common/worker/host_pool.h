// A device's host memory (pinned, on a GPU) for items on their way: taking and giving back the device's own takes
// milliseconds, so what was used once is kept.
#ifndef SALAMANDER_COMMON_WORKER_HOST_POOL_H_
#define SALAMANDER_COMMON_WORKER_HOST_POOL_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include <unordered_set>

#include "kernels/ops.h"

namespace salamander::worker {

// Any thread.
class HostPool {
 public:
  // Of memory that nobody uses, this much is kept. As much as the transfers of one role hold at the most by default.
  static constexpr int64_t kKeptBytes = int64_t{256} << 20;

  // `ops` outlives it.
  explicit HostPool(kernels::Ops* ops) : ops_(ops) {}
  // All that was taken has been given back.
  ~HostPool();
  HostPool(const HostPool&) = delete;
  HostPool& operator=(const HostPool&) = delete;

  // Of the device, or where that has none, any of the host's, which works as well and is slower. Never null.
  std::byte* Take(int64_t bytes);
  void Give(std::byte* memory, int64_t bytes);

 private:
  // Sizes are rounded up, so that pieces of nearly the same size can take each other's place: at most by a quarter.
  static int64_t Rounded(int64_t bytes);

  kernels::Ops* const ops_;
  std::mutex mutex_;                         // of what follows
  std::multimap<int64_t, std::byte*> kept_;  // by size
  int64_t kept_bytes_ = 0;
  std::unordered_set<const std::byte*> plain_;  // taken, and not of the device
};

}  // namespace salamander::worker

#endif  // SALAMANDER_COMMON_WORKER_HOST_POOL_H_
