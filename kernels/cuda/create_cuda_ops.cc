// Finds out whether a GPU can be used, and gives programs the backend.
#include <algorithm>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/base/status_macros.h"
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda_plugin.h"

namespace salamander::kernels::cuda {
namespace {

std::string VersionName(int version) { return absl::StrCat(version / 1000, ".", version % 1000 / 10); }

absl::Status CannotCount(cudaError_t error) {
  cudaGetLastError();
  int driver = 0;
  if (cudaDriverGetVersion(&driver) != cudaSuccess) driver = 0;
  if (error == cudaErrorInsufficientDriver && driver == 0) {
    return absl::FailedPreconditionError("cuda: no GPU: there is no NVIDIA driver on this machine");
  }
  if (error == cudaErrorInsufficientDriver) {
    return absl::FailedPreconditionError(absl::StrCat("cuda: the driver is too old: it is for CUDA up to ",
                                                      VersionName(driver), ", this build needs ",
                                                      VersionName(CUDART_VERSION)));
  }
  return absl::FailedPreconditionError(absl::StrCat("cuda: no GPU: ", cudaGetErrorString(error)));
}

// As CMake names them: "80;90a".
std::vector<std::string> BuiltArchitectures() { return absl::StrSplit(SALAMANDER_CUDA_ARCHITECTURES, ','); }

absl::Status CheckCode(const cudaDeviceProp& card) {
  const cudaError_t error = card.major < 8 ? cudaErrorNoKernelImageForDevice : CheckDeviceCode();
  if (error == cudaErrorNoKernelImageForDevice || error == cudaErrorInvalidKernelImage ||
      error == cudaErrorUnsupportedPtxVersion || error == cudaErrorInvalidDeviceFunction) {
    cudaGetLastError();
    return absl::FailedPreconditionError(absl::StrCat(
        "cuda: this build has no code for ", card.name, ", compute capability ", card.major, ".", card.minor,
        ": it has ", SALAMANDER_CUDA_ARCHITECTURES, " (CMAKE_CUDA_ARCHITECTURES); 8.0 is the least that is possible"));
  }
  return CudaStatus(error, "load device code");
}

}  // namespace

absl::StatusOr<std::unique_ptr<Ops>> CudaOps::Create(int device) {
  int count = 0;
  if (const cudaError_t error = cudaGetDeviceCount(&count); error != cudaSuccess) return CannotCount(error);
  if (device < 0 || device >= count) {
    return absl::InvalidArgumentError(absl::StrCat("cuda: device must be in [0, ", count, "), got ", device));
  }
  cudaDeviceProp card;
  RETURN_IF_ERROR(CudaStatus(cudaGetDeviceProperties(&card, device), "properties of the device"));
  RETURN_IF_ERROR(CudaStatus(cudaSetDevice(device), "set the device"));
  RETURN_IF_ERROR(CheckCode(card));

  // Code for "90a" runs on 9.0 and nowhere else.
  const std::vector<std::string> built = BuiltArchitectures();
  const bool hopper =
      card.major == 9 && card.minor == 0 &&
      std::any_of(built.begin(), built.end(), [](const std::string& arch) { return arch.starts_with("90a"); });
  std::unique_ptr<CudaOps> ops(new CudaOps(device, hopper ? Arch::kSm90a : Arch::kSm80, card.multiProcessorCount,
                                           absl::StrCat("cuda (", card.name, ", ", hopper ? "sm_90a" : "sm_80", ")")));
  RETURN_IF_ERROR(ops->Initialize());
  return ops;
}

}  // namespace salamander::kernels::cuda

extern "C" __attribute__((visibility("default"))) const salamander::kernels::CudaPlugin* salamander_cuda_plugin() {
  static constexpr salamander::kernels::CudaPlugin kPlugin = {SALAMANDER_OPS_INTERFACE,
                                                              salamander::kernels::cuda::CudaOps::Create};
  return &kPlugin;
}
