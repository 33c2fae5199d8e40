#include "kernels/device.h"

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "kernels/cuda.h"

namespace salamander::kernels {

absl::StatusOr<DeviceSpec> ParseDevice(std::string_view text) {
  const absl::string_view given(text.data(), text.size());
  if (given == "cpu") return DeviceSpec{};
  if (given == "cuda") return DeviceSpec{.cuda = true};
  DeviceSpec device{.cuda = true};
  absl::string_view index = given;
  if (absl::ConsumePrefix(&index, "cuda:") && absl::SimpleAtoi(index, &device.index) && device.index >= 0)
    return device;
  return absl::InvalidArgumentError(absl::StrCat("device must be cpu, cuda or cuda:N, got \"", given, "\""));
}

absl::StatusOr<std::unique_ptr<Ops>> CreateOps(const DeviceSpec& device, int threads) {
  if (device.cuda) return CreateCudaOps(device.index);
  return CreateCpuOps(threads);
}

}  // namespace salamander::kernels
