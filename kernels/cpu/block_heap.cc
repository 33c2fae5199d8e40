#include "kernels/cpu/block_heap.h"

#include <algorithm>
#include <cstring>
#include <functional>
#include <limits>

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

}  // namespace

float OfferToHeap(BlockHeap& heap, float value, int32_t block) {
  if (heap.capacity == 0) return std::numeric_limits<float>::infinity();
  if (heap.size < heap.capacity) {
    if (value >= 0) {
      heap.keys[heap.size++] = KeyOf(value, block);
      std::push_heap(heap.keys, heap.keys + heap.size, std::greater<>());  // the worst on top
    }
  } else if (value > ValueOf(heap.keys[0])) {
    std::pop_heap(heap.keys, heap.keys + heap.size, std::greater<>());
    heap.keys[heap.size - 1] = KeyOf(value, block);
    std::push_heap(heap.keys, heap.keys + heap.size, std::greater<>());
  }
  return heap.size < heap.capacity ? -1 : ValueOf(heap.keys[0]);
}

void HeapBlocks(const BlockHeap& heap, int32_t* out) {
  for (int32_t i = 0; i < heap.size; ++i) out[i] = static_cast<int32_t>(~static_cast<uint32_t>(heap.keys[i]));
}

}  // namespace salamander::kernels
