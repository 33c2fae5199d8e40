// The best blocks of one token, kept while blocks are scored in ascending order: "the lower block wins ties".
#ifndef SALAMANDER_KERNELS_CPU_BLOCK_HEAP_H_
#define SALAMANDER_KERNELS_CPU_BLOCK_HEAP_H_

#include <cstdint>

#include "kernels/cpu/kernel_table.h"

namespace salamander::kernels {

// Values are ≥ 0, capacity is > 0. Returns what a later block must exceed to get in: below zero until the heap is full.
// A NaN is never among the best.
float OfferToHeap(BlockHeap& heap, float value, int32_t block);

// Writes the blocks in the heap, in no particular order, to `out`.
void HeapBlocks(const BlockHeap& heap, int32_t* out);

}  // namespace salamander::kernels

#endif  // SALAMANDER_KERNELS_CPU_BLOCK_HEAP_H_
