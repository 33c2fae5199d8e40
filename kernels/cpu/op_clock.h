// Time spent per kind of operation.
#ifndef SALAMANDER_KERNELS_CPU_OP_CLOCK_H_
#define SALAMANDER_KERNELS_CPU_OP_CLOCK_H_

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "kernels/op_kind.h"

namespace salamander::kernels {

// Written by the engine thread, read by any.
class OpClock {
 public:
  // Adds its own lifetime to an operation's time.
  class Scope {
   public:
    Scope(OpClock& clock, OpKind kind) : total_(clock.nanoseconds_[static_cast<size_t>(kind)]) {}
    ~Scope() {
      const auto spent = std::chrono::steady_clock::now() - begin_;
      total_.fetch_add(std::chrono::duration_cast<std::chrono::nanoseconds>(spent).count(), std::memory_order_relaxed);
    }
    Scope(const Scope&) = delete;

   private:
    std::atomic<int64_t>& total_;
    std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
  };

  std::vector<std::pair<std::string, double>> Seconds() const {
    std::vector<std::pair<std::string, double>> out;
    for (size_t i = 0; i < kOpKinds; ++i) {
      out.emplace_back(OpName(static_cast<OpKind>(i)),
                       1e-9 * static_cast<double>(nanoseconds_[i].load(std::memory_order_relaxed)));
    }
    return out;
  }

 private:
  std::array<std::atomic<int64_t>, kOpKinds> nanoseconds_{};
};

}  // namespace salamander::kernels

#endif  // SALAMANDER_KERNELS_CPU_OP_CLOCK_H_
