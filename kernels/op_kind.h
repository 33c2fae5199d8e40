// The operations of Ops by name, for times and messages.
#ifndef SALAMANDER_KERNELS_OP_KIND_H_
#define SALAMANDER_KERNELS_OP_KIND_H_

#include <array>
#include <cstddef>

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
  kSample,
  kCount
};
inline constexpr size_t kOpKinds = static_cast<size_t>(OpKind::kCount);

inline const char* OpName(OpKind kind) {
  static constexpr std::array<const char*, kOpKinds> kNames = {
      "matmul",    "embed",      "add_rms_norm",  "head_norm_rope", "silu_mul",     "norm_gate", "lightning",
      "append_kv", "pool_tiers", "select_blocks", "attend_blocks",  "attend_dense", "sample"};
  return kNames[static_cast<size_t>(kind)];
}

}  // namespace salamander::kernels

#endif  // SALAMANDER_KERNELS_OP_KIND_H_
