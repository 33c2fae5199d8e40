// What the kernel tests share: every test runs on each instruction set this machine has, with one and with more
// threads, on random inputs that are the same in every run.
#ifndef SALAMANDER_TESTS_KERNELS_BACKEND_FIXTURE_H_
#define SALAMANDER_TESTS_KERNELS_BACKEND_FIXTURE_H_

#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "kernels/ops.h"

namespace salamander::kernels {

struct Backend {
  CpuIsa isa;
  int threads;
};

inline std::vector<Backend> AllBackends() {
  std::vector<Backend> all;
  for (CpuIsa isa : {CpuIsa::kPortable, CpuIsa::kAvx2, CpuIsa::kAvx512}) {
    if (isa > DetectCpuIsa()) continue;
    all.push_back({isa, 1});
    all.push_back({isa, 3});
  }
  return all;
}

inline std::string BackendName(const ::testing::TestParamInfo<Backend>& info) {
  return CpuIsaName(info.param.isa) + "_" + std::to_string(info.param.threads);
}

// Normally distributed floats.
inline std::vector<float> Random(int64_t count, uint32_t seed, float scale = 1) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal(0, scale);
  std::vector<float> out(count);
  for (float& x : out) x = normal(generator);
  return out;
}

// A row-major array of the device with `pad` columns more than it shows, so that a wrong stride is seen.
class Array {
 public:
  Array(Ops& ops, int64_t rows, int64_t cols, const std::vector<float>& values = {}, int64_t pad = 16)
      : ops_(ops), rows_(rows), cols_(cols), stride_(cols + pad) {
    data_ = static_cast<float*>(ops.Allocate(std::max<int64_t>(1, rows * stride_) * 4).value());
    for (int64_t i = 0; i < rows * stride_; ++i) data_[i] = -77;
    for (int64_t r = 0; r < rows && !values.empty(); ++r) {
      std::memcpy(data_ + r * stride_, values.data() + r * cols, cols * 4);
    }
  }
  Array(const Array&) = delete;
  ~Array() { ops_.Free(data_); }

  Matrix matrix() const { return {data_, rows_, cols_, stride_}; }
  // Columns [col, col + cols).
  Matrix columns(int64_t col, int64_t cols) const { return {data_ + col, rows_, cols, stride_}; }
  Matrix rows(int64_t row, int64_t rows) const { return {data_ + row * stride_, rows, cols_, stride_}; }
  float at(int64_t row, int64_t col) const { return data_[row * stride_ + col]; }
  const float* row(int64_t row) const { return data_ + row * stride_; }
  std::vector<float> values() const {
    std::vector<float> out;
    for (int64_t r = 0; r < rows_; ++r) out.insert(out.end(), row(r), row(r) + cols_);
    return out;
  }
  bool PaddingUntouched() const {
    for (int64_t r = 0; r < rows_; ++r) {
      for (int64_t c = cols_; c < stride_; ++c) {
        if (at(r, c) != -77) return false;
      }
    }
    return true;
  }

 private:
  Ops& ops_;
  int64_t rows_, cols_, stride_;
  float* data_;
};

// The pages of one sparse layer of one sequence, filled from random keys and values.
class PagedContext {
 public:
  PagedContext(Ops& ops, const SparseShape& shape, int64_t tokens, uint32_t seed)
      : ops_(ops),
        shape_(shape),
        width_(shape.kv.kv_heads * shape.kv.head_dim),
        keys_(Random(tokens * width_, seed)),
        values_(Random(tokens * width_, seed + 1)) {
    for (int64_t i = 0; i * kPageTokens < tokens; ++i) {
      pages_.push_back(static_cast<std::byte*>(ops.Allocate(shape.kv.page_bytes()).value()));
      // What was never written must never be read: NaN.
      std::memset(pages_.back(), 0xff, shape.kv.page_bytes());
    }
  }
  PagedContext(const PagedContext&) = delete;
  ~PagedContext() {
    for (std::byte* page : pages_) ops_.Free(page);
  }

  // Appends tokens [from, to) and computes the windows that end there.
  void Append(int64_t from, int64_t to) {
    Array k(ops_, to - from, width_, Slice(keys_, from, to)), v(ops_, to - from, width_, Slice(values_, from, to));
    const SparseRows rows = {0, to - from, from, pages_.data()};
    ASSERT_TRUE(ops_.AppendKv(shape_, k.matrix(), v.matrix(), absl::MakeConstSpan(&rows, 1)).ok());
    ASSERT_TRUE(ops_.PoolTiers(shape_, absl::MakeConstSpan(&rows, 1)).ok());
  }

  std::byte* const* pages() const { return pages_.data(); }
  const float* key(int64_t token, int64_t head) const {
    return keys_.data() + token * width_ + head * shape_.kv.head_dim;
  }
  const float* value(int64_t token, int64_t head) const {
    return values_.data() + token * width_ + head * shape_.kv.head_dim;
  }
  std::vector<float>& mutable_keys() { return keys_; }
  std::vector<float>& mutable_values() { return values_; }

 private:
  std::vector<float> Slice(const std::vector<float>& all, int64_t from, int64_t to) const {
    return std::vector<float>(all.begin() + from * width_, all.begin() + to * width_);
  }

  Ops& ops_;
  SparseShape shape_;
  int64_t width_;
  std::vector<float> keys_, values_;
  std::vector<std::byte*> pages_;
};

class BackendTest : public ::testing::TestWithParam<Backend> {
 protected:
  BackendTest() : ops_(CreateCpuOps(GetParam().threads, GetParam().isa).value()) {}
  std::unique_ptr<Ops> ops_;
};

}  // namespace salamander::kernels

#endif  // SALAMANDER_TESTS_KERNELS_BACKEND_FIXTURE_H_
