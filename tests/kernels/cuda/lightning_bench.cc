// Lightning attention of one layer of the released model: 32 heads of 128.
#include <cmath>
#include <vector>

#include "absl/strings/str_format.h"
#include "kernels/cuda/launch.h"
#include "tests/kernels/cuda/bench.h"

namespace salamander::kernels::cuda {
namespace {

constexpr int64_t kHeads = 32, kDim = 128, kCols = kHeads * kDim, kStateFloats = kHeads * kDim * kDim;
constexpr int64_t kFusedCols = 4 * kCols;  // q, k, v and the gate

// `count` sequences of `rows` rows; `copies` sets of them, taken in turn.
void Run(const char* name, Arch arch, int multiprocessors, int64_t count, int64_t rows, int64_t copies) {
  const int64_t tokens = count * rows;
  std::vector<float> slopes;
  for (int64_t h = 0; h < kHeads; ++h) slopes.push_back(std::exp2(-8.0f * (h + 1) / kHeads));
  std::vector<LightningSequence> sequences(copies * count);
  float* states = BenchArray<float>(copies * count * kStateFloats);
  for (int64_t i = 0; i < copies * count; ++i) {
    sequences[i].row = i % count * rows;
    sequences[i].rows = rows;
    sequences[i].state = states + i * kStateFloats;
  }
  float* slopes_data = BenchArray<float>(kHeads);
  auto* sequences_data = BenchArray<LightningSequence>(copies * count);
  Check(cudaMemcpy(slopes_data, slopes.data(), kHeads * sizeof(float), cudaMemcpyHostToDevice));
  Check(cudaMemcpy(sequences_data, sequences.data(), sequences.size() * sizeof(LightningSequence),
                   cudaMemcpyHostToDevice));
  auto* fused = BenchArray<bf16>(tokens * kFusedCols);
  auto* out = BenchArray<bf16>(tokens * kCols);

  LightningParams params;
  params.heads = params.kv_heads = kHeads;
  params.dim = kDim;
  params.scale = 1 / std::sqrt(static_cast<float>(kDim));
  params.slopes = slopes_data;
  params.count = count;
  params.max_rows = rows;
  params.arch = arch;
  params.multiprocessors = multiprocessors;
  auto* workspace = BenchArray<std::byte>(LightningWorkspaceBytes(params) + 1);
  const double time = Microseconds([&](int i, cudaStream_t stream) {
    params.sequences = sequences_data + i % copies * count;
    Check(Lightning(params, {fused, kFusedCols}, {fused + kCols, kFusedCols}, {fused + 2 * kCols, kFusedCols},
                    {out, kCols}, workspace, stream));
  });
  const double bytes = 4.0 * tokens * kCols * sizeof(bf16) + 2.0 * count * kStateFloats * sizeof(float);
  Report(absl::StrFormat("lightning %s, %d x %d rows%s", name, count, rows, arch == Arch::kSm80 ? ", sm_80" : ""), time,
         4.0 * tokens * kHeads * kDim * kDim, bytes);
  for (void* data : std::initializer_list<void*>{states, slopes_data, sequences_data, fused, out, workspace}) {
    Check(cudaFree(data));
  }
}

void RunAll() {
  int multiprocessors = 0;
  Check(cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, 0));
  for (int64_t batch : {1, 8, 32, 64}) Run("step", Arch::kSm80, multiprocessors, batch, 1, 512 / batch);
  int major = 0;
  Check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0));
  for (Arch arch : {Arch::kSm90a, Arch::kSm80}) {
    if (arch == Arch::kSm90a && major != 9) continue;
    Run("prefill", arch, multiprocessors, 1, 8192, 1);
    Run("prefill", arch, multiprocessors, 1, 2048, 1);
    Run("prefill", arch, multiprocessors, 4, 2048, 1);
  }
}

}  // namespace
}  // namespace salamander::kernels::cuda

int main() {
  if (!salamander::kernels::cuda::PrintDevice()) return 0;
  salamander::kernels::cuda::RunAll();
}
