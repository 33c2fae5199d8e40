// The inner loops of the lossless codec, per instruction set. All give the same bytes (docs/stream_format.md).
//
// A tile of n elements is coded in four parts: codes, ⌈n/2⌉ bytes, two 4-bit codes each; signs and mantissas, n bytes;
// low halves (float32 only), 2n bytes; escapes, one byte for each element whose code is kEscapeCode.
// Codes lie in groups of 128 elements: element j < 64 in the low half of byte j, element 64 + j in its high half. A
// last group of m < 128 elements takes ⌈m/2⌉ bytes, with ⌈m/2⌉ in the place of 64.
#ifndef SALAMANDER_COMMON_STREAM_TILE_KERNELS_H_
#define SALAMANDER_COMMON_STREAM_TILE_KERNELS_H_

#include <cstddef>
#include <cstdint>
#include <vector>

namespace salamander::stream {

inline constexpr size_t kTileGroup = 128;
inline constexpr uint8_t kEscapeCode = 15;
// What encode returns when a tile has more escapes than it may.
inline constexpr size_t kTooManyEscapes = ~size_t{0};

// Where a tile's coded parts begin; `low` is unused for BF16.
struct TileParts {
  uint8_t* codes;
  uint8_t* sign_mantissa;
  uint8_t* low;
  uint8_t* escapes;
};
struct ConstTileParts {
  const uint8_t* codes;
  const uint8_t* sign_mantissa;
  const uint8_t* low;
  const uint8_t* escapes;
};

// Elements are little-endian, of any alignment. No function reads or writes beyond the parts' lengths.
struct ElementKernels {
  // Largest exponent field of n elements; 0 for none.
  uint8_t (*max_exponent)(const std::byte* elements, size_t n);
  // Returns the number of escapes written, or kTooManyEscapes.
  size_t (*encode)(const std::byte* elements, size_t n, uint8_t max_exponent, size_t most_escapes,
                   const TileParts& parts);
  // False if the codes do not go with that number of escapes or reach below exponent 0; `elements` is then undefined.
  bool (*decode)(const ConstTileParts& parts, size_t escapes, uint8_t max_exponent, size_t n, std::byte* elements);
};

struct TileKernels {
  const char* name;
  ElementKernels bfloat16, float32;
};

const TileKernels& PortableTileKernels();
// Null where the build has none. Only for processors that have them.
const TileKernels* Avx2TileKernels();
const TileKernels* Avx512TileKernels();
// Those this processor can run, the fastest first.
const std::vector<const TileKernels*>& UsableTileKernels();

}  // namespace salamander::stream

#endif  // SALAMANDER_COMMON_STREAM_TILE_KERNELS_H_
