// Memory a thread works in. Sizes in floats, for the kernels of kernel_table.h.
#ifndef SALAMANDER_KERNELS_CPU_SCRATCH_H_
#define SALAMANDER_KERNELS_CPU_SCRATCH_H_

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <vector>

#include "kernels/cpu/kernel_table.h"

namespace salamander::kernels {

inline int64_t LightningScratch(int64_t dim) { return (3 * kChunkTokens + 1) * dim + kChunkTokens * kChunkTokens; }

// Of a stage-1 tile: its columns (SelectTask), and for 32 windows at a time products and their sums over heads, beside
// a log-sum-exp for each column.
inline int64_t SelectColumns(int64_t group) { return group * kSelectTokens; }
inline int64_t SelectScratch(int64_t group) { return 32 * (64 + kSelectTokens) + SelectColumns(group); }

// Of a single token in stage 1: queries, 64 windows, their products and scores, log-sum-exps.
inline int64_t TokenScratchFloats(int64_t group, int64_t dim) { return (group + 64) * dim + 64 * group + 64 + group; }

// Queries and output of all rows; keys of a block; scores, maximum and factor of a piece; maximum and sums of all rows.
inline int64_t AttendScratch(int64_t dim) { return kAttendRows * (2 * dim + 17) + 64 * dim + kMaxGroup * (64 + 2); }

// 64-byte aligned floats that grow on demand, contents undefined.
class Scratch {
 public:
  float* Get(int64_t floats) {
    if (floats > size_) {
      size_ = (floats + 15) / 16 * 16;
      memory_.reset(static_cast<float*>(std::aligned_alloc(64, size_ * sizeof(float))));
      if (memory_ == nullptr) std::abort();  // a few hundred KiB; the machine is beyond help
    }
    return memory_.get();
  }

 private:
  struct Freer {
    void operator()(float* p) const { std::free(p); }
  };
  std::unique_ptr<float, Freer> memory_;
  int64_t size_ = 0;
};

}  // namespace salamander::kernels

#endif  // SALAMANDER_KERNELS_CPU_SCRATCH_H_
