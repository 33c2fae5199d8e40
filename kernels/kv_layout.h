// Where the keys, values and tiers of one sparse layer lie inside a page.
//
// A page holds 1024 tokens of one layer of one sequence:
//
//   16 blocks of 64 tokens:  [block 16][kv head G][keys, values][64 tokens][head_dim]      element type
//   K1 tier, 64 windows:     [kv head G][64][head_dim]                                      tier type
//   K2 tier, 16 windows:     [kv head G][16][head_dim]                                      tier type
//
// Blocks are what stage 2 reads and what streams carry: whole blocks are contiguous, so a span of tokens is one run of
// bytes per page. Window j of K1 (mean of keys 16j … 16j+31) lies in the page of its first token, likewise K2
// (64j … 64j+127); windows that reach into the next page are written once their last key is there.
// Tier type: float32 where keys are float32, BF16 where keys are BF16.
#ifndef SALAMANDER_KERNELS_KV_LAYOUT_H_
#define SALAMANDER_KERNELS_KV_LAYOUT_H_

#include <cstddef>
#include <cstdint>

namespace salamander::kernels {

enum class DType { kFloat32, kBFloat16 };
constexpr int64_t DTypeBytes(DType type) { return type == DType::kFloat32 ? 4 : 2; }

// Fixed by the model family; a checkpoint with others is refused at load.
inline constexpr int64_t kBlockTokens = 64;
inline constexpr int64_t kK1Stride = 16, kK1Window = 32;
inline constexpr int64_t kK2Stride = 64, kK2Window = 128;
inline constexpr int64_t kPageTokens = 1024;
inline constexpr int64_t kPageBlocks = kPageTokens / kBlockTokens;
inline constexpr int64_t kPageK1 = kPageTokens / kK1Stride;
inline constexpr int64_t kPageK2 = kPageTokens / kK2Stride;

// Whole windows inside `tokens` tokens.
constexpr int64_t K1Count(int64_t tokens) { return tokens < kK1Window ? 0 : (tokens - kK1Window) / kK1Stride + 1; }
constexpr int64_t K2Count(int64_t tokens) { return tokens < kK2Window ? 0 : (tokens - kK2Window) / kK2Stride + 1; }

struct KvLayout {
  int64_t kv_heads = 0;
  int64_t head_dim = 0;
  DType type = DType::kFloat32;

  // Bytes of one tile: the keys, or the values, of one block and head.
  constexpr int64_t tile_bytes() const { return kBlockTokens * head_dim * DTypeBytes(type); }
  constexpr int64_t block_bytes() const { return kv_heads * 2 * tile_bytes(); }
  // Keys and values of one token, all heads.
  constexpr int64_t token_bytes() const { return kv_heads * 2 * head_dim * DTypeBytes(type); }
  constexpr int64_t page_bytes() const {
    return kPageBlocks * block_bytes() + (kPageK1 + kPageK2) * row_bytes() * kv_heads;
  }

  // Offsets in a page. `block`, `k1` and `k2` count inside the page.
  constexpr int64_t keys(int64_t block, int64_t head) const { return block * block_bytes() + head * 2 * tile_bytes(); }
  constexpr int64_t values(int64_t block, int64_t head) const { return keys(block, head) + tile_bytes(); }
  constexpr int64_t k1(int64_t head, int64_t window) const {
    return kPageBlocks * block_bytes() + (head * kPageK1 + window) * row_bytes();
  }
  constexpr int64_t k2(int64_t head, int64_t window) const {
    return kPageBlocks * block_bytes() + kv_heads * kPageK1 * row_bytes() + (head * kPageK2 + window) * row_bytes();
  }
  constexpr int64_t row_bytes() const { return head_dim * DTypeBytes(type); }
};

}  // namespace salamander::kernels

#endif  // SALAMANDER_KERNELS_KV_LAYOUT_H_
