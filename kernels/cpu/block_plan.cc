#include "kernels/cpu/block_plan.h"

#include <algorithm>

#include "kernels/cpu/block_heap.h"

namespace salamander::kernels {

BlockPlan::BlockPlan(const SparseShape& shape, int64_t position)
    : own(position / kBlockTokens), top_blocks(shape.top_blocks) {
  begin = std::min(shape.init_blocks, own + 1);
  end = std::max(begin, own - shape.local_blocks);
  places = top_blocks - begin - (own + 1 - end);
}

void BlockPlan::Write(const BlockHeap& winners, int32_t* out) const {
  int32_t* const last = out + top_blocks;
  auto append = [&](int64_t from, int64_t to) {
    for (int64_t b = from; b < to && out < last; ++b) *out++ = static_cast<int32_t>(b);
  };
  append(0, begin);
  if (contested()) {
    HeapBlocks(winners, out);
    std::sort(out, out + winners.size);
    out += winners.size;
  } else if (places > 0) {
    append(begin, end);
  }
  append(end, own + 1);  // if forced blocks alone are too many, the lower ones win
  std::fill(out, last, -1);
}

}  // namespace salamander::kernels
