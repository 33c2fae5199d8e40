// Rows of bf16 in device memory with poison around them, and comparison of bf16 results with float64.
#ifndef SALAMANDER_TESTS_KERNELS_CUDA_DEVICE_ROWS_H_
#define SALAMANDER_TESTS_KERNELS_CUDA_DEVICE_ROWS_H_

#include <cmath>
#include <cstring>
#include <vector>

#include "tests/kernels/cuda/device.h"

namespace salamander::kernels::cuda {

// `pad` columns more than it shows behind every row, and `lead` elements in front of the first: NaN, like everything
// without values. Odd numbers of either make addresses that 16-byte accesses cannot have.
class DeviceRows {
 public:
  DeviceRows(int64_t rows, int64_t cols, const std::vector<float>& values = {}, int64_t pad = 16, int64_t lead = 0)
      : rows_(rows), cols_(cols), stride_(cols + pad), lead_(lead), array_(lead + rows * stride_) {
    if (!values.empty()) Write(values);
  }

  // values [rows, cols], rounded.
  void Write(const std::vector<float>& values) const {
    std::vector<bf16> all = array_.Read();
    for (int64_t r = 0; r < rows_; ++r) {
      for (int64_t c = 0; c < cols_; ++c) all[Index(r, c)] = __float2bfloat16(values[r * cols_ + c]);
    }
    EXPECT_EQ(cudaMemcpy(array_.data(), all.data(), all.size() * sizeof(bf16), cudaMemcpyHostToDevice), cudaSuccess);
  }

  // From column `col` of row `row` on.
  Rows rows(int64_t row = 0, int64_t col = 0) const { return {array_.data() + Index(row, col), stride_}; }
  ConstRows const_rows(int64_t row = 0, int64_t col = 0) const { return {array_.data() + Index(row, col), stride_}; }

  // [rows, cols]; fails where the poison around them changed.
  std::vector<float> Read() const {
    const std::vector<bf16> all = array_.Read();
    std::vector<float> values;
    std::vector<bool> shown(all.size());
    for (int64_t r = 0; r < rows_; ++r) {
      for (int64_t c = 0; c < cols_; ++c) {
        values.push_back(__bfloat162float(all[Index(r, c)]));
        shown[Index(r, c)] = true;
      }
    }
    for (size_t i = 0; i < all.size(); ++i) {
      uint16_t bits;
      std::memcpy(&bits, &all[i], sizeof(bits));
      if (!shown[i] && bits != 0xffff) {
        ADD_FAILURE() << "written outside of the rows, at element " << i;
        break;
      }
    }
    return values;
  }

 private:
  int64_t Index(int64_t row, int64_t col) const { return lead_ + row * stride_ + col; }

  int64_t rows_, cols_, stride_, lead_;
  DeviceArray<bf16> array_;
};

// Whether `got` is `want` as bf16 keeps it, where `want` may be off by `slack`.
inline bool IsBf16Of(double got, double want, double slack) {
  return std::abs(got - want) <= std::abs(want) / 256 * 1.001 + slack;
}

}  // namespace salamander::kernels::cuda

#endif  // SALAMANDER_TESTS_KERNELS_CUDA_DEVICE_ROWS_H_
