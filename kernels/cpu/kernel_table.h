// The functions that are compiled once per instruction set, behind pointers. Each works on one thread, on plain memory.
//
// This header is included by files that are compiled for instruction sets the machine may lack. So it holds plain
// structs only: an inline function compiled there could be the copy the linker keeps for everybody.
#ifndef SALAMANDER_KERNELS_CPU_KERNEL_TABLE_H_
#define SALAMANDER_KERNELS_CPU_KERNEL_TABLE_H_

#include <cstddef>
#include <cstdint>

namespace salamander::kernels {

// Tokens that stage 1 works on at once, one per lane: all of one 64-token block, as tiles begin at multiples of 16.
inline constexpr int64_t kSelectTokens = 16;
// Query rows (tokens times heads of a group) of a stage-2 tile, and how many of them are scored at once, unless one
// token has more heads.
inline constexpr int64_t kAttendRows = 256;
inline constexpr int64_t kPieceRows = 16;
// Query heads of a group at most.
inline constexpr int64_t kMaxGroup = 64;
// Tokens of a lightning chunk.
inline constexpr int64_t kChunkTokens = 64;
// Pages of one stage-1 range: log-sum-exps are taken per range and then combined, by every path alike, so that a long
// sequence can be shared by threads without its sums depending on them.
inline constexpr int64_t kRangePages = 32;
// Output features of a panel of a weight.
inline constexpr int64_t kWeightPanel = 64;
// Head sizes are multiples of this (the longest vector).
inline constexpr int64_t kDimMultiple = 16;

// `rows` rows of `cols` floats.
struct Rows {
  float* data;
  int64_t stride;
};

// One key/value head of one layer of one sequence: byte offsets inside its pages (kv_layout.h).
struct HeadPages {
  std::byte* const* pages;
  int64_t dim;
  int64_t keys;         // of block 0
  int64_t values;       // of block 0
  int64_t block_bytes;  // from block to block
  int64_t k1;
  int64_t k2;
};

// y [rows, out] = x [rows, in] · panels (+ bias). A panel holds kWeightPanel output features as [in][kWeightPanel].
struct MatMulTask {
  int64_t rows, in, out;
  Rows x;
  const float* panels;
  const float* bias;  // null: none
  Rows y;
};

struct AddRmsNormTask {
  int64_t rows, cols;
  Rows hidden;
  Rows delta;  // data null: nothing to add
  float delta_scale;
  const float* norm;
  float eps, x_scale;
  Rows x;  // data null: not wanted
};

struct HeadNormRopeTask {
  int64_t rows, heads, dim;
  Rows x;
  const float* norm;  // null: no norm
  float eps;
  const float* cosines;  // [rows, dim / 2]; null: no rotation
  const float* sines;
};

struct NormGateTask {
  int64_t rows, cols;
  Rows x;
  const float* norm;  // null: no norm
  float eps;
  Rows gate;  // data null: no gate
};

// Rows of one sequence and head, for columns [col, col + cols) of its values, output and state.
struct LightningTask {
  int64_t rows, position, dim;
  int64_t col, cols;
  Rows q, k, v, out;  // begin at the head's first column
  float* state;       // [dim, dim]
  float scale;
  const float* powers;  // 64 zeros, then decay^0 … decay^64
};

// Stage 1 of up to kSelectTokens tokens of one block and one key/value head. In a tile, queries are packed as columns,
// column = head · 16 + token: a lane is a token, and sums over the heads of a group are sums of vectors.
struct SelectTask {
  HeadPages kv;
  int64_t group;  // query heads
  int64_t rows;
  int64_t position;  // of the first row
  Rows q;            // begins at the group's first head
};

// The best blocks of one token seen so far; see block_heap.h.
struct BlockHeap {
  uint64_t* keys;
  int32_t size;
  int32_t capacity;
};
// Returns what the next block's value must be greater than. Must come in ascending order of blocks.
using OfferBlock = float (*)(BlockHeap& heap, float value, int32_t block);

// Stage 2 of up to kAttendRows / group tokens and one key/value head.
struct AttendTask {
  HeadPages kv;
  int64_t group;
  int64_t rows;
  int64_t position;
  Rows q;                 // begins at the group's first head
  Rows out;               // likewise
  const int32_t* blocks;  // of the first row, ascending, ending in -1 if fewer than top_blocks; null: every block
  int64_t blocks_stride;  // from row to row
  int64_t top_blocks;
};

struct KernelTable {
  void (*matmul)(const MatMulTask& task);
  void (*add_rms_norm)(const AddRmsNormTask& task);
  void (*head_norm_rope)(const HeadNormRopeTask& task);
  void (*norm_gate)(const NormGateTask& task);
  // out[i] = SiLU(gate[i]) · up[i]
  void (*silu_mul)(const float* gate, const float* up, float* out, int64_t count);
  // out [dim] = mean of `count` rows at a and `count` rows at b.
  void (*mean_of_rows)(const float* a, const float* b, int64_t count, int64_t dim, float* out);
  // The exponentials that the others are built on, for tests of their accuracy.
  void (*exp)(const float* x, float* out, int64_t count);
  void (*exp2)(const float* x, float* out, int64_t count);

  // Scratch: LightningScratch floats (scratch.h), likewise below.
  void (*lightning_chunks)(const LightningTask& task, float* scratch);
  void (*lightning_step)(const LightningTask& task);

  // Packs the queries: [columns / 64][dim][64], scaled to exponents of 2.
  void (*select_pack)(const SelectTask& task, float* packed);
  // Log-sum-exp (base 2) of each column over the visible K2 of pages [begin, end), as maximum and sum.
  void (*select_coarse)(const SelectTask& task, const float* packed, int64_t page_begin, int64_t page_end, float* most,
                        float* sum, float* scratch);
  // Combines another range into (most, sum).
  void (*select_combine)(int64_t columns, const float* range_most, const float* range_sum, float* most, float* sum);
  // Scores K1, pools them to blocks [block_begin, block_end) and offers these to each row's heap.
  void (*select_fine)(const SelectTask& task, const float* packed, const float* most, const float* sum,
                      int64_t block_begin, int64_t block_end, BlockHeap* heaps, OfferBlock offer, float* scratch);
  // The same of a single token: most and sum [group], and the values of the blocks.
  void (*token_coarse)(const SelectTask& task, int64_t page_begin, int64_t page_end, float* most, float* sum,
                       float* scratch);
  void (*token_values)(const SelectTask& task, const float* most, const float* sum, int64_t block_begin,
                       int64_t block_end, float* values, float* scratch);

  void (*attend)(const AttendTask& task, float* scratch);
};

const KernelTable& PortableKernels();
const KernelTable& Avx2Kernels();
const KernelTable& Avx512Kernels();

}  // namespace salamander::kernels

#endif  // SALAMANDER_KERNELS_CPU_KERNEL_TABLE_H_
