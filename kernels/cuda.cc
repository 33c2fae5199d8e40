#include "kernels/cuda.h"

#include <dlfcn.h>

#include <cstring>
#include <filesystem>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "kernels/cuda_plugin.h"

namespace salamander::kernels {
namespace {

constexpr char kLibrary[] = "libsalamander_cuda.so";

absl::StatusOr<const CudaPlugin*> FindCudaPlugin() {
  std::error_code error;
  const std::filesystem::path program = std::filesystem::read_symlink("/proc/self/exe", error);
  if (error) return absl::InternalError(absl::StrCat("/proc/self/exe cannot be read: ", error.message()));
  const std::filesystem::path beside = program.parent_path() / kLibrary;
  // One that is there but cannot be opened says why; it is not looked for elsewhere.
  if (std::filesystem::exists(beside, error)) return OpenCudaPlugin(beside.string());
  absl::StatusOr<const CudaPlugin*> plugin = OpenCudaPlugin(kLibrary);
  if (plugin.ok()) return plugin;
  return absl::FailedPreconditionError(
      absl::StrCat("built without CUDA? There is no ", beside.string(), "; ", plugin.status().message()));
}

}  // namespace

absl::StatusOr<const CudaPlugin*> OpenCudaPlugin(const std::string& path) {
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) return absl::FailedPreconditionError(absl::StrCat("CUDA backend: ", dlerror()));
  const auto entry = reinterpret_cast<CudaPluginEntry>(dlsym(library, kCudaPluginEntry));
  if (entry == nullptr) return absl::FailedPreconditionError(absl::StrCat("CUDA backend: ", dlerror()));
  const CudaPlugin* plugin = entry();
  if (std::strcmp(plugin->interface, SALAMANDER_OPS_INTERFACE) != 0) {
    return absl::FailedPreconditionError(absl::StrCat("CUDA backend: ", path, " has interface ", plugin->interface,
                                                      ", this program ", SALAMANDER_OPS_INTERFACE,
                                                      ": they are of different builds"));
  }
  return plugin;
}

absl::StatusOr<std::unique_ptr<Ops>> CreateCudaOps(int device) {
  static const absl::StatusOr<const CudaPlugin*> plugin = FindCudaPlugin();
  RETURN_IF_ERROR(plugin.status());
  return (*plugin)->create(device);
}

}  // namespace salamander::kernels
