#include "kernels/cpu/body/table.h"
#include "kernels/cpu/simd_portable.h"

namespace salamander::kernels {

const KernelTable& PortableKernels() { return body::kTable<Portable>; }

}  // namespace salamander::kernels
