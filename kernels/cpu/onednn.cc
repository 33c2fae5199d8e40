#include "kernels/cpu/onednn.h"

#include <dlfcn.h>

namespace salamander::kernels {

decltype(&dnnl_sgemm) OneDnnSgemm() {
  static const auto sgemm = []() -> decltype(&dnnl_sgemm) {
    static_assert(DNNL_VERSION_MAJOR == 2);
    void* const library = dlopen("libdnnl.so.2", RTLD_NOW | RTLD_LOCAL);
    return library == nullptr ? nullptr : reinterpret_cast<decltype(&dnnl_sgemm)>(dlsym(library, "dnnl_sgemm"));
  }();
  return sgemm;
}

}  // namespace salamander::kernels
