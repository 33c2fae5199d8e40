#include "kernels/cpu/block_heap.h"

#include <algorithm>
#include <cstring>
#include <functional>

namespace salamander::kernels {
namespace {

// Greater keys are better blocks: the bits of floats ≥ 0 are ordered like the floats, and among equal values the lower
// block has the greater lower half.
uint64_t KeyOf(float value, int32_t block) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return static_cast<uint64_t>(bits) << 32 | ~static_cast<uint32_t>(block);
}

float ValueOf(uint64_t key) {
  const uint32_t bits = key >> 32;
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

// Puts `key` in place of the worst one, which is keys[0] of a binary heap.
void ReplaceWorst(uint64_t* keys, int32_t size, uint64_t key) {
  int32_t at = 0;
  for (int32_t child; (child = 2 * at + 1) < size; at = child) {
    if (child + 1 < size && keys[child + 1] < keys[child]) ++child;
    if (key <= keys[child]) break;
    keys[at] = keys[child];
  }
  keys[at] = key;
}

}  // namespace

float OfferToHeap(BlockHeap& heap, float value, int32_t block) {
  if (heap.size < heap.capacity) {
    if (!(value >= 0)) return -1;
    heap.keys[heap.size++] = KeyOf(value, block);
    if (heap.size < heap.capacity) return -1;
    std::make_heap(heap.keys, heap.keys + heap.size, std::greater<>());  // the worst on top
  } else if (value > ValueOf(heap.keys[0])) {
    ReplaceWorst(heap.keys, heap.size, KeyOf(value, block));
  }
  return ValueOf(heap.keys[0]);
}

void HeapBlocks(const BlockHeap& heap, int32_t* out) {
  for (int32_t i = 0; i < heap.size; ++i) out[i] = static_cast<int32_t>(~static_cast<uint32_t>(heap.keys[i]));
}

}  // namespace salamander::kernels
