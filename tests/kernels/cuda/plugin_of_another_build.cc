// A library that looks like the CUDA backend of another build.
#include "kernels/cuda_plugin.h"

extern "C" const salamander::kernels::CudaPlugin* salamander_cuda_plugin() {
  static constexpr salamander::kernels::CudaPlugin kPlugin = {"0123456789abcdef", nullptr};
  return &kPlugin;
}
