// Rows of bf16 or float32 in device memory with poison around them, and comparison of bf16 results with float64.
#ifndef SALAMANDER_TESTS_KERNELS_CUDA_DEVICE_ROWS_H_
#define SALAMANDER_TESTS_KERNELS_CUDA_DEVICE_ROWS_H_

#include <cmath>
#include <cstring>
#include <type_traits>
#include <vector>

#include "tests/kernels/cuda/device.h"

namespace salamander::kernels::cuda {

// `pad` columns more than it shows behind every row, and `lead` elements in front of the first: NaN, like everything
// without values. Odd numbers of either make addresses that 16-byte accesses cannot have.
template <typename T>
class DeviceRowsOf {
 public:
  using View = std::conditional_t<std::is_same_v<T, float>, FloatRows, Rows>;

  DeviceRowsOf(int64_t rows, int64_t cols, const std::vector<float>& values = {}, int64_t pad = 16, int64_t lead = 0)
      : rows_(rows), cols_(cols), stride_(cols + pad), lead_(lead), array_(lead + rows * stride_) {
    if (!values.empty()) Write(values);
  }

  // values [rows, cols], rounded to T.
  void Write(const std::vector<float>& values) const {
    std::vector<T> all = array_.Read();
    for (int64_t r = 0; r < rows_; ++r) {
      for (int64_t c = 0; c < cols_; ++c) all[Index(r, c)] = static_cast<T>(values[r * cols_ + c]);
    }
    EXPECT_EQ(cudaMemcpy(array_.data(), all.data(), all.size() * sizeof(T), cudaMemcpyHostToDevice), cudaSuccess);
  }

  // From column `col` of row `row` on.
  View rows(int64_t row = 0, int64_t col = 0) const { return {array_.data() + Index(row, col), stride_}; }
  ConstRows const_rows(int64_t row = 0, int64_t col = 0) const { return {array_.data() + Index(row, col), stride_}; }

  // [rows, cols]; fails where the poison around them changed.
  std::vector<float> Read() const {
    const std::vector<T> all = array_.Read();
    std::vector<float> values;
    std::vector<bool> shown(all.size());
    for (int64_t r = 0; r < rows_; ++r) {
      for (int64_t c = 0; c < cols_; ++c) {
        values.push_back(static_cast<float>(all[Index(r, c)]));
        shown[Index(r, c)] = true;
      }
    }
    const std::vector<uint8_t> poison(sizeof(T), 0xff);
    for (size_t i = 0; i < all.size(); ++i) {
      if (!shown[i] && std::memcmp(&all[i], poison.data(), sizeof(T)) != 0) {
        ADD_FAILURE() << "written outside of the rows, at element " << i;
        break;
      }
    }
    return values;
  }

 private:
  int64_t Index(int64_t row, int64_t col) const { return lead_ + row * stride_ + col; }

  int64_t rows_, cols_, stride_, lead_;
  DeviceArray<T> array_;
};
using DeviceRows = DeviceRowsOf<bf16>;
using FloatDeviceRows = DeviceRowsOf<float>;

// Whether `got` is `want` as bf16 keeps it, where `want` may be off by `slack`.
inline bool IsBf16Of(double got, double want, double slack) {
  return std::abs(got - want) <= std::abs(want) / 256 * 1.001 + slack;
}

}  // namespace salamander::kernels::cuda

#endif  // SALAMANDER_TESTS_KERNELS_CUDA_DEVICE_ROWS_H_
