// What the tests of CUDA kernels share: device memory, bf16 values, and skipping where there is no GPU.
#ifndef SALAMANDER_TESTS_KERNELS_CUDA_DEVICE_H_
#define SALAMANDER_TESTS_KERNELS_CUDA_DEVICE_H_

#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "kernels/cuda/launch.h"

namespace salamander::kernels::cuda {

// Why no kernel can run here; empty if one can.
inline std::string WhyNoGpu() {
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error != cudaSuccess) return std::string("no GPU: ") + cudaGetErrorString(error);
  return count == 0 ? "no GPU" : "";
}

class GpuTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (const std::string why = WhyNoGpu(); !why.empty()) GTEST_SKIP() << why;
    cudaDeviceProp properties;
    ASSERT_EQ(cudaGetDeviceProperties(&properties, 0), cudaSuccess);
    multiprocessors_ = properties.multiProcessorCount;
    archs_ = {Arch::kSm80};
    if (properties.major == 9) archs_.push_back(Arch::kSm90a);
  }
  // Waits for all kernels; a fault of any of them shows here.
  static void Finish() { ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess) << cudaGetErrorString(cudaGetLastError()); }

  int multiprocessors_ = 0;
  std::vector<Arch> archs_;  // that this GPU runs
};

// An array in device memory. Without values it is poisoned: every byte 0xff, so bf16 and float32 are NaN.
template <typename T>
class DeviceArray {
 public:
  explicit DeviceArray(int64_t size) : size_(size) {
    EXPECT_EQ(cudaMalloc(reinterpret_cast<void**>(&data_), Bytes()), cudaSuccess);
    EXPECT_EQ(cudaMemset(data_, 0xff, Bytes()), cudaSuccess);
  }
  explicit DeviceArray(const std::vector<T>& values) : DeviceArray(static_cast<int64_t>(values.size())) {
    EXPECT_EQ(cudaMemcpy(data_, values.data(), values.size() * sizeof(T), cudaMemcpyHostToDevice), cudaSuccess);
  }
  DeviceArray(const DeviceArray&) = delete;
  ~DeviceArray() { cudaFree(data_); }

  T* data() const { return data_; }
  int64_t size() const { return size_; }
  std::vector<T> Read() const {
    std::vector<T> values(size_);
    EXPECT_EQ(cudaMemcpy(values.data(), data_, size_ * sizeof(T), cudaMemcpyDeviceToHost), cudaSuccess)
        << cudaGetErrorString(cudaGetLastError());
    return values;
  }

 private:
  size_t Bytes() const { return (size_ > 0 ? size_ : 1) * sizeof(T); }
  int64_t size_;
  T* data_ = nullptr;
};

inline std::vector<bf16> ToBf16(const std::vector<float>& values) {
  std::vector<bf16> out;
  for (float value : values) out.push_back(__float2bfloat16(value));
  return out;
}
inline std::vector<float> ToFloat(const std::vector<bf16>& values) {
  std::vector<float> out;
  for (bf16 value : values) out.push_back(__bfloat162float(value));
  return out;
}
// Each value as bf16 keeps it.
inline std::vector<float> Rounded(const std::vector<float>& values) { return ToFloat(ToBf16(values)); }

}  // namespace salamander::kernels::cuda

#endif  // SALAMANDER_TESTS_KERNELS_CUDA_DEVICE_H_
