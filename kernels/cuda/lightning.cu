// Lightning attention as launch.h offers it.
#include "kernels/cuda/lightning.cuh"

namespace salamander::kernels::cuda {

int64_t LightningWorkspaceBytes(const LightningParams& params) {
  if (params.count == 0 || params.max_rows <= 1) return 0;
  const int spans = LightningSpans(params);
  if (spans == 1) return 0;
  return params.count * params.heads * LightningSlots(spans) * params.dim * params.dim * sizeof(float);
}

cudaError_t Lightning(const LightningParams& params, ConstRows q, ConstRows k, ConstRows v, Rows out, void* workspace,
                      cudaStream_t stream) {
  if (params.count == 0 || params.max_rows == 0) return cudaSuccess;
  LightningArgs args;
  args.q = q;
  args.k = k;
  args.v = v;
  args.out = out;
  args.slopes = params.slopes;
  args.sequences = params.sequences;
  args.workspace = static_cast<float*>(workspace);
  args.heads = static_cast<int>(params.heads);
  args.group = static_cast<int>(params.heads / params.kv_heads);
  args.spans = LightningSpans(params);
  args.scale = params.scale;
  const int dim = static_cast<int>(params.dim), count = static_cast<int>(params.count);
  if (params.max_rows == 1) return LightningStep(args, dim, count, stream);
  if (args.spans > 1) {
    const cudaError_t error = LightningStates(args, dim, count, stream);
    if (error != cudaSuccess) return error;
  }
  return LightningChunks(args, dim, count, params.arch, stream);
}

}  // namespace salamander::kernels::cuda
