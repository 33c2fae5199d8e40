// Weights and matrix products of the CPU backend.
//
// A weight lies in panels of 64 output features, [in][64] each, so that a product streams it in order at any number of
// rows. Products are our own micro-kernel's (body/gemm.h) on AVX2 and AVX-512, and oneDNN's in large tiles where we
// have portable code only and the machine has oneDNN. GFLOP/s on one Zen 5 core with other processes beside
// (kernels_bench prints them), first for in = out = a few hundred, then 4096:
//
//   rows               1    4   16   64  2048         1    4   16   64  2048
//   ours              76  205  212  218   215        16   48  125  179   200
//   oneDNN sgemm      65  140  203  217   213        10   31   84  193   213
//
// oneDNN's matmul primitive with reordered weights takes contiguous rows only (Debian's 2.6 falls back to reference
// code for others, and our rows are parts of wider ones); with plain weights it is the sgemm above. Ours also gives a
// row the same bits whatever rows it comes with, so that results do not depend on how a prompt is split; oneDNN treats
// a single row apart.
#ifndef SALAMANDER_KERNELS_CPU_MATMUL_H_
#define SALAMANDER_KERNELS_CPU_MATMUL_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/cpu/fork_join.h"
#include "kernels/cpu/kernel_table.h"
#include "kernels/ops.h"

namespace salamander::kernels {

class CpuWeight : public Weight {
 public:
  // RESOURCE_EXHAUSTED without memory.
  static absl::StatusOr<std::unique_ptr<CpuWeight>> Create(absl::Span<const WeightPart> parts);
  ~CpuWeight() override;

  int64_t in_features() const override { return in_; }
  int64_t out_features() const override { return out_; }
  int64_t bytes() const override;

  // Copies output feature `row` (of an embedding table: a token's vector) times `scale` to out [in_features].
  void Gather(int64_t row, float scale, float* out) const;
  // The panel of output features [64·index, …), zeros after the last feature.
  const float* panel(int64_t index) const { return data_ + index * in_ * kWeightPanel; }
  int64_t panels() const { return (out_ + kWeightPanel - 1) / kWeightPanel; }

 private:
  CpuWeight() = default;
  int64_t in_ = 0, out_ = 0;
  float* data_ = nullptr;
};

// y = x · weightᵀ + bias. Engine thread only.
absl::Status Multiply(const KernelTable& kernels, CpuIsa isa, ForkJoin& pool, const Matrix& x, const CpuWeight& weight,
                      const float* bias, const Matrix& y);

}  // namespace salamander::kernels

#endif  // SALAMANDER_KERNELS_CPU_MATMUL_H_
