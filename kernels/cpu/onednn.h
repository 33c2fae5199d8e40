// oneDNN's matrix product, where the machine has the library: it is 40 MB, and only machines for which we have portable
// code alone gain by it, so that nothing links it.
#ifndef SALAMANDER_KERNELS_CPU_ONEDNN_H_
#define SALAMANDER_KERNELS_CPU_ONEDNN_H_

#include <oneapi/dnnl/dnnl.h>

namespace salamander::kernels {

// dnnl_sgemm, or null if libdnnl.so.2 (whose header this is) cannot be opened.
decltype(&dnnl_sgemm) OneDnnSgemm();

}  // namespace salamander::kernels

#endif  // SALAMANDER_KERNELS_CPU_ONEDNN_H_
