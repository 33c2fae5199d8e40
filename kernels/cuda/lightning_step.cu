// The recurrent step of lightning attention, one token a sequence: S = λ S + k vᵀ, out = scale · q S. It is bound by
// reading and writing states, so they are cut into strips of 32 columns, one thread block each, with all of a thread's
// loads under way at once.
#include "kernels/cuda/device/pieces.cuh"
#include "kernels/cuda/lightning.cuh"

namespace salamander::kernels::cuda {
namespace {

constexpr int kStrip = 32;               // columns of a thread block: 8 threads of 4
constexpr int kThreadRows = kPieceCols;  // rows of a thread: one piece of q and k

// kDim threads.
template <int kDim>
__global__ __launch_bounds__(kDim) void StepKernel(LightningArgs args) {
  AllowNext();
  WaitForPrevious();
  const int head = blockIdx.y, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const LightningSequence sequence = args.sequences[blockIdx.z];
  if (sequence.rows == 0) return;
  const int row = threadIdx.x / 8 * kThreadRows, col = blockIdx.x * kStrip + threadIdx.x % 8 * 4;
  float* state = sequence.state + (static_cast<int64_t>(head) * kDim + row) * kDim + col;
  float4 s[kThreadRows];
#pragma unroll
  for (int i = 0; i < kThreadRows; ++i) s[i] = __ldcs(reinterpret_cast<const float4*>(state + i * kDim));

  const int64_t kv_col = static_cast<int64_t>(head / args.group) * kDim;
  float k[kThreadRows], q[kThreadRows];
  UnpackPiece(*reinterpret_cast<const uint4*>(args.k.data + sequence.row * args.k.stride + kv_col + row), k);
  UnpackPiece(*reinterpret_cast<const uint4*>(args.q.data + sequence.row * args.q.stride + head * kDim + row), q);
  const uint2 v = *reinterpret_cast<const uint2*>(args.v.data + sequence.row * args.v.stride + kv_col + col);
  const float2 v0 = __bfloat1622float2(reinterpret_cast<const __nv_bfloat162&>(v.x));
  const float2 v1 = __bfloat1622float2(reinterpret_cast<const __nv_bfloat162&>(v.y));
  const float decay = Decay(DecayRate(args, head), 1);

  // Or the compiler puts off most loads until others are used, to save registers.
  __syncthreads();

  float4 out = {0, 0, 0, 0};
#pragma unroll
  for (int i = 0; i < kThreadRows; ++i) {
    s[i].x = fmaf(k[i], v0.x, s[i].x * decay);
    s[i].y = fmaf(k[i], v0.y, s[i].y * decay);
    s[i].z = fmaf(k[i], v1.x, s[i].z * decay);
    s[i].w = fmaf(k[i], v1.y, s[i].w * decay);
    __stcs(reinterpret_cast<float4*>(state + i * kDim), s[i]);
    out.x = fmaf(q[i], s[i].x, out.x);
    out.y = fmaf(q[i], s[i].y, out.y);
    out.z = fmaf(q[i], s[i].z, out.z);
    out.w = fmaf(q[i], s[i].w, out.w);
  }

  // Sums over rows: the four of a warp, then the warps.
#pragma unroll
  for (int lanes = 8; lanes <= 16; lanes *= 2) {
    out.x += __shfl_xor_sync(kAllLanes, out.x, lanes);
    out.y += __shfl_xor_sync(kAllLanes, out.y, lanes);
    out.z += __shfl_xor_sync(kAllLanes, out.z, lanes);
    out.w += __shfl_xor_sync(kAllLanes, out.w, lanes);
  }
  __shared__ float4 sums[kDim / 32][8];
  if (lane < 8) sums[warp][lane] = out;
  __syncthreads();
  if (threadIdx.x >= kStrip) return;
  float sum = 0;
  for (int w = 0; w < kDim / 32; ++w) sum += reinterpret_cast<const float*>(sums[w])[lane];
  args.out.data[sequence.row * args.out.stride + head * kDim + blockIdx.x * kStrip + lane] =
      __float2bfloat16(sum * args.scale);
}

template <int kDim>
cudaError_t Launch(const LightningArgs& args, int count, cudaStream_t stream) {
  return LaunchChained(StepKernel<kDim>, dim3(kDim / kStrip, args.heads, count), kDim, stream, args);
}

}  // namespace

cudaError_t LightningStep(const LightningArgs& args, int dim, int count, cudaStream_t stream) {
  switch (dim) {
    case 32:
      return Launch<32>(args, count, stream);
    case 64:
      return Launch<64>(args, count, stream);
    case 128:
      return Launch<128>(args, count, stream);
    default:
      return cudaErrorInvalidValue;
  }
}

}  // namespace salamander::kernels::cuda
