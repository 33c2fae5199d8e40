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

namespace salamander::kernels {

enum class OpKind {
  kMatMul,
  kEmbed,
  kAddRmsNorm,
  kHeadNormRope,
  kSiluMul,
  kNormGate,
  kLightning,
  kAppendKv,
  kPoolTiers,
  kSelectBlocks,
  kAttendBlocks,
  kAttendDense,
  kCount
};

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
    static constexpr std::array<const char*, static_cast<size_t>(OpKind::kCount)> kNames = {
        "matmul",    "embed",     "add_rms_norm", "head_norm_rope", "silu_mul",      "norm_gate",
        "lightning", "append_kv", "pool_tiers",   "select_blocks",  "attend_blocks", "attend_dense"};
    std::vector<std::pair<std::string, double>> out;
    for (size_t i = 0; i < kNames.size(); ++i) {
      out.emplace_back(kNames[i], 1e-9 * static_cast<double>(nanoseconds_[i].load(std::memory_order_relaxed)));
    }
    return out;
  }

 private:
  std::array<std::atomic<int64_t>, static_cast<size_t>(OpKind::kCount)> nanoseconds_{};
};

}  // namespace salamander::kernels

#endif  // SALAMANDER_KERNELS_CPU_OP_CLOCK_H_
