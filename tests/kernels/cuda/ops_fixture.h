// What tests of the CUDA backend through Ops share: the two backends, and arrays in device memory without CUDA's
// headers.
#ifndef SALAMANDER_TESTS_KERNELS_CUDA_OPS_FIXTURE_H_
#define SALAMANDER_TESTS_KERNELS_CUDA_OPS_FIXTURE_H_

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <memory>
#include <type_traits>
#include <vector>

#include "absl/strings/match.h"
#include "kernels/cuda.h"
#include "tests/kernels/backend_fixture.h"

namespace salamander::kernels {

inline constexpr float kEps = 1e-6f;

inline uint16_t ToBits(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
inline float FromBits(uint16_t half) {
  const uint32_t bits = static_cast<uint32_t>(half) << 16;
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}
inline std::vector<float> Bf16Random(int64_t count, uint32_t seed, float scale = 1) {
  std::vector<float> values = Random(count, seed, scale);
  for (float& value : values) value = FromBits(ToBits(value));
  return values;
}

// Memory of an Ops that frees itself.
template <typename T>
class OpsArray {
 public:
  OpsArray(Ops& ops, int64_t size) : ops_(ops), size_(size), data_(static_cast<T*>(ops.Allocate(bytes()).value())) {}
  OpsArray(Ops& ops, const std::vector<T>& values) : OpsArray(ops, static_cast<int64_t>(values.size())) {
    Write(values);
  }
  OpsArray(const OpsArray&) = delete;
  ~OpsArray() { ops_.Free(data_); }

  T* data() const { return data_; }
  int64_t bytes() const { return size_ * static_cast<int64_t>(sizeof(T)); }
  void Write(const std::vector<T>& values) { EXPECT_TRUE(ops_.CopyToDevice(data_, values.data(), bytes()).ok()); }
  std::vector<T> Read() const {
    std::vector<T> values(size_);
    EXPECT_TRUE(ops_.CopyToHost(values.data(), data_, bytes()).ok());
    const absl::Status status = ops_.Synchronize();
    EXPECT_TRUE(status.ok()) << status;
    return values;
  }

 private:
  Ops& ops_;
  int64_t size_;
  T* data_;
};

// Rows of bf16 (as bits) or float32 with NaN, all bits set, behind each, which no op may touch.
template <typename T>
class OpsRowsOf {
 public:
  static constexpr int64_t kPad = 8;
  OpsRowsOf(Ops& ops, int64_t rows, int64_t cols, const std::vector<float>& values = {})
      : rows_(rows), cols_(cols), data_(ops, rows * (cols + kPad)) {
    Write(values);
  }
  void Write(const std::vector<float>& values) {
    std::vector<T> padded(rows_ * (cols_ + kPad));
    std::memset(padded.data(), 0xff, padded.size() * sizeof(T));
    for (size_t i = 0; i < values.size(); ++i) padded[i / cols_ * (cols_ + kPad) + i % cols_] = Of(values[i]);
    data_.Write(padded);
  }
  Matrix matrix() const { return {data_.data(), rows_, cols_, cols_ + kPad}; }
  Matrix columns(int64_t col, int64_t cols) const { return {data_.data() + col, rows_, cols, cols_ + kPad}; }
  std::vector<float> Read() const {
    const std::vector<T> padded = data_.Read();
    std::vector<float> values;
    for (size_t i = 0; i < padded.size(); ++i) {
      const int64_t col = static_cast<int64_t>(i) % (cols_ + kPad);
      if (col < cols_) {
        values.push_back(Value(padded[i]));
      } else {
        EXPECT_EQ(std::memcmp(&padded[i], &kPoison, sizeof(T)), 0) << "behind row " << i / (cols_ + kPad);
      }
    }
    return values;
  }

 private:
  static constexpr uint32_t kPoison = 0xffffffff;
  static T Of(float value) {
    if constexpr (std::is_same_v<T, float>)
      return value;
    else
      return ToBits(value);
  }
  static float Value(T element) {
    if constexpr (std::is_same_v<T, float>)
      return element;
    else
      return FromBits(element);
  }

  int64_t rows_, cols_;
  OpsArray<T> data_;
};
using OpsRows = OpsRowsOf<uint16_t>;
using FloatOpsRows = OpsRowsOf<float>;

// As far apart as one rounding to bf16 and float32 sums in another order may bring them.
inline void ExpectClose(const std::vector<float>& got, const std::vector<float>& want, float absolute = 4e-3f) {
  ASSERT_EQ(got.size(), want.size());
  for (size_t i = 0; i < got.size(); ++i) {
    ASSERT_NEAR(got[i], want[i], absolute + std::abs(want[i]) / 100) << "element " << i;
  }
}

class CudaOpsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    absl::StatusOr<std::unique_ptr<Ops>> ops = CreateCudaOps(0);
    if (!ops.ok() && absl::StrContains(ops.status().message(), "no GPU")) GTEST_SKIP() << ops.status().message();
    ASSERT_TRUE(ops.ok()) << ops.status();
    gpu_ = *std::move(ops);
    cpu_ = CreateCpuOps(2).value();
  }

  static std::unique_ptr<Weight> Prepare(Ops& ops, const std::vector<float>& values, int64_t out, int64_t in) {
    const WeightPart part = {values.data(), DType::kFloat32, out, in};
    return ops.PrepareWeight(absl::MakeConstSpan(&part, 1)).value();
  }

  std::unique_ptr<Ops> gpu_, cpu_;
};

}  // namespace salamander::kernels

#endif  // SALAMANDER_TESTS_KERNELS_CUDA_OPS_FIXTURE_H_
