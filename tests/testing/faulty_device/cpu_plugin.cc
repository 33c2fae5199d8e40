// The CPU backend as a library like the CUDA backend's, so that what concerns devices can be tested without one.
#include "kernels/cuda_plugin.h"

namespace {

absl::StatusOr<std::unique_ptr<salamander::kernels::Ops>> Create(int /*device*/) {
  return salamander::kernels::CreateCpuOps(/*threads=*/1);
}

}  // namespace

extern "C" __attribute__((visibility("default"))) const salamander::kernels::CudaPlugin* salamander_cuda_plugin() {
  static constexpr salamander::kernels::CudaPlugin kPlugin = {SALAMANDER_OPS_INTERFACE, Create};
  return &kPlugin;
}
