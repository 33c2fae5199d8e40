// A backend by the name that --device takes.
#ifndef SALAMANDER_KERNELS_DEVICE_H_
#define SALAMANDER_KERNELS_DEVICE_H_

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "kernels/ops.h"

namespace salamander::kernels {

struct DeviceSpec {
  bool cuda = false;
  int index = 0;  // of the GPU
};

// "cpu", "cuda" or "cuda:N". INVALID_ARGUMENT otherwise.
absl::StatusOr<DeviceSpec> ParseDevice(std::string_view text);

// `threads`: of the CPU backend.
absl::StatusOr<std::unique_ptr<Ops>> CreateOps(const DeviceSpec& device, int threads);

}  // namespace salamander::kernels

#endif  // SALAMANDER_KERNELS_DEVICE_H_
