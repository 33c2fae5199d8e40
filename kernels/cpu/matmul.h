// Weights and matrix products of the CPU backend.
//
// A weight lies in panels of 64 output features, [in][64] each, so that a product streams it in order at any number of
// rows. Two ways to multiply, by what was measured to be faster (one Zen 5 core, peak 236 GFLOP/s; in = 192 … 480, then
// in = 4096; kernels_bench prints them):
//
//   rows                       1    2    4   16   64  256        16   64
//   our micro-kernel         107  172  232  235  237  236       201  195
//   oneDNN dnnl_sgemm         57  106  190  226  230  232       206  223
//   oneDNN matmul primitive   48    -  177  213  223  225         -    -    (reordered weights, contiguous rows only)
//
// So oneDNN takes long rows in large tiles, where cache blocking decides, and all large tiles where we have no better
// than portable code; our kernel takes the rest. Ours also gives a row the same bits whatever rows it comes with, which
// oneDNN does not (it treats one row apart).
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
