// Tensor core products of one warp (mma.sync, sm_80 and later) and the copies that feed them. PTX ISA, "Matrix
// multiply-accumulate operation using mma instruction".
//
// Fragments of m16n8k16, with g = lane / 4 and t = lane % 4, two bf16 a register, the lower column in the low half:
//
//   A [16 × 16]  a0: row g,   cols 2t 2t+1     a1: row g+8, cols 2t 2t+1
//                a2: row g,   cols 2t+8 2t+9   a3: row g+8, cols 2t+8 2t+9
//   B [16 × 8]   b0: rows 2t 2t+1, col g       b1: rows 2t+8 2t+9, col g
//   C [16 × 8]   c0 c1: row g, cols 2t 2t+1    c2 c3: row g+8, cols 2t 2t+1
#ifndef SALAMANDER_KERNELS_CUDA_DEVICE_MMA_CUH_
#define SALAMANDER_KERNELS_CUDA_DEVICE_MMA_CUH_

#include <cuda_bf16.h>

#include <cstdint>

namespace salamander::kernels::cuda {

// The mask of warp-wide operations.
inline constexpr unsigned kAllLanes = 0xffffffff;

__device__ inline uint32_t SharedAddress(const void* shared) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(shared));
}

// c += a · b.
__device__ inline void MmaBf16(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};\n"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Four 8 × 8 matrices of bf16; lanes 8i … 8i+7 give the addresses of the rows (16 bytes each) of matrix i, and r[i]
// gets row lane / 4, cols 2(lane % 4) and the next of it. `shared` is a SharedAddress.
__device__ inline void LoadMatrix4(uint32_t (&r)[4], uint32_t shared) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];\n"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared));
}
// The same, each matrix transposed.
__device__ inline void LoadMatrix4Transposed(uint32_t (&r)[4], uint32_t shared) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];\n"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared));
}

// Asynchronous copy of 16 bytes to shared memory; only the first `bytes` are read, the rest is zero.
__device__ inline void CopyAsync16(uint32_t shared, const void* global, int bytes = 16) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(shared), "l"(global), "r"(bytes) : "memory");
}
__device__ inline void CommitCopies() { asm volatile("cp.async.commit_group;\n" ::: "memory"); }
// Waits until at most kPending groups of this thread are under way.
template <int kPending>
__device__ inline void WaitCopies() {
  asm volatile("cp.async.wait_group %0;\n" ::"n"(kPending) : "memory");
}

__device__ inline uint32_t PackBf16(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return *reinterpret_cast<const uint32_t*>(&pair);
}

// exp2 in hardware, two units in the last place.
__device__ inline float FastExp2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;\n" : "=f"(y) : "f"(x));
  return y;
}

// Byte offset of the 16-byte piece `piece` of row `row` in a tile of rows of kRowBytes (64, 128 or 256), so that eight
// rows' same pieces, and one row's eight neighbouring pieces, lie in different banks.
template <int kRowBytes>
__device__ inline int Swizzle(int row, int piece) {
  constexpr int kPieces = kRowBytes / 16;
  static_assert(kPieces == 4 || kPieces == 8 || kPieces == 16);
  // 64-byte rows: two of them share the banks of one 128-byte line.
  const int key = kPieces == 4 ? (row / 2) & 3 : row & 7;
  return row * kRowBytes + (piece ^ key) * 16;
}

}  // namespace salamander::kernels::cuda

#endif  // SALAMANDER_KERNELS_CUDA_DEVICE_MMA_CUH_
