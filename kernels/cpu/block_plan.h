// Which blocks of a token are forced, which compete, and for how many places.
//
// The model lets all blocks of the sequence compete for the places, later ones too, and drops blocks after the token's
// own from the winners. That is the same as a contest among blocks up to its own, whatever comes later: a block after
// own is either forced (below init_blocks), and then every block up to own is forced too and lower; or its windows are
// all hidden, so that its value is 0 or -∞, while blocks up to own have values ≥ 0 and win ties by being lower. So
// nothing here depends on how long the sequence is.
//
// A block that competes has seen windows: it ends at least one block before own, so its windows 4b-1 … 4b+2 at least
// are visible. Where no K2 is visible, at most two blocks exist, and all scores are 0.
#ifndef SALAMANDER_KERNELS_CPU_BLOCK_PLAN_H_
#define SALAMANDER_KERNELS_CPU_BLOCK_PLAN_H_

#include <cstdint>

#include "kernels/cpu/kernel_table.h"
#include "kernels/ops.h"

namespace salamander::kernels {

struct BlockPlan {
  BlockPlan(const SparseShape& shape, int64_t position);

  // Some must lose, so blocks must be scored. Otherwise no competing block gets in, or all do.
  bool contested() const { return places > 0 && end - begin > places; }
  // Writes the choice, ascending and padded with -1 to top_blocks. The heap is read if contested.
  void Write(const BlockHeap& winners, int32_t* out) const;

  int64_t own;         // the block of the token
  int64_t begin, end;  // competing blocks; those below begin, and from end to own, are forced
  int64_t places;      // for competing blocks; ≤ 0 if forced ones take all
  int64_t top_blocks;
};

}  // namespace salamander::kernels

#endif  // SALAMANDER_KERNELS_CPU_BLOCK_PLAN_H_
