// In the place of libsalamander_cuda.so: the backend at SALAMANDER_TEST_BACKEND (another such library), with faults.
#include <cstdlib>

#include "common/base/status_macros.h"
#include "kernels/cuda_plugin.h"
#include "tests/testing/faulty_device/faulty_ops.h"

namespace {

absl::StatusOr<std::unique_ptr<salamander::kernels::Ops>> Create(int device) {
  const char* path = std::getenv("SALAMANDER_TEST_BACKEND");
  ASSIGN_OR_RETURN(const salamander::kernels::CudaPlugin* real,
                   salamander::kernels::OpenCudaPlugin(path == nullptr ? "" : path));
  ASSIGN_OR_RETURN(std::unique_ptr<salamander::kernels::Ops> ops, real->create(device));
  return salamander::testing::MakeFaulty(std::move(ops));
}

}  // namespace

extern "C" __attribute__((visibility("default"))) const salamander::kernels::CudaPlugin* salamander_cuda_plugin() {
  static constexpr salamander::kernels::CudaPlugin kPlugin = {SALAMANDER_OPS_INTERFACE, Create};
  return &kPlugin;
}
