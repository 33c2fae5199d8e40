// The border between programs and libsalamander_cuda.so. Objects of C++ cross it, so both sides must come from one
// build: checked before anything else, by a digest of the headers that describe these objects.
#ifndef SALAMANDER_KERNELS_CUDA_PLUGIN_H_
#define SALAMANDER_KERNELS_CUDA_PLUGIN_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "kernels/ops.h"

namespace salamander::kernels {

struct CudaPlugin {
  const char* interface;  // stays the first field for ever
  absl::StatusOr<std::unique_ptr<Ops>> (*create)(int device);
};

// The library's one exported symbol, extern "C", by this name.
inline constexpr char kCudaPluginEntry[] = "salamander_cuda_plugin";
using CudaPluginEntry = const CudaPlugin* (*)();

// Opens the library at `path`, or by dlopen's search if `path` has no slash. It is never closed: what it made may live
// as long as the process.
absl::StatusOr<const CudaPlugin*> OpenCudaPlugin(const std::string& path);

}  // namespace salamander::kernels

#endif  // SALAMANDER_KERNELS_CUDA_PLUGIN_H_
