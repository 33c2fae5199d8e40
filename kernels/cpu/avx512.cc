#include "kernels/cpu/body/table.h"
#include "kernels/cpu/simd_avx512.h"

namespace salamander::kernels {

const KernelTable& Avx512Kernels() { return body::kTable<Avx512>; }

}  // namespace salamander::kernels
