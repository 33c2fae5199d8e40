#include "kernels/cpu/body/table.h"
#include "kernels/cpu/simd_avx2.h"

namespace salamander::kernels {

const KernelTable& Avx2Kernels() { return body::kTable<Avx2>; }

}  // namespace salamander::kernels
