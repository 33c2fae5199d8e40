// Prepared weights and matrix products against float64.
#include "kernels/random_weight.h"
#include "tests/kernels/backend_fixture.h"
#include "tests/kernels/reference.h"

namespace salamander::kernels {
namespace {

class MatMulTest : public BackendTest {};

// Upper halves of float32: what a checkpoint's BF16 holds.
std::vector<uint16_t> ToBfloat16(std::vector<float>& values) {
  std::vector<uint16_t> out;
  for (float& value : values) {
    uint32_t bits;
    std::memcpy(&bits, &value, 4);
    bits &= 0xffff0000u;
    std::memcpy(&value, &bits, 4);
    out.push_back(bits >> 16);
  }
  return out;
}

TEST_P(MatMulTest, MatchesFloat64ForAnyRowCount) {
  for (auto [in, out] : std::vector<std::pair<int64_t, int64_t>>{{192, 960}, {480, 192}, {33, 7}, {1, 1}, {128, 130}}) {
    const std::vector<float> w = Random(in * out, 1, 0.1f), bias = Random(out, 2);
    const WeightPart part = {w.data(), DType::kFloat32, out, in};
    auto weight = ops_->PrepareWeight(absl::MakeConstSpan(&part, 1)).value();
    EXPECT_EQ(weight->in_features(), in);
    EXPECT_EQ(weight->out_features(), out);
    EXPECT_GE(weight->bytes(), in * out * 4);
    for (int64_t rows : {1, 2, 3, 16, 17, 63, 65, 300}) {
      Array x(*ops_, rows, in, Random(rows * in, 3)), y(*ops_, rows, out), logits(*ops_, rows, out);
      ASSERT_TRUE(ops_->MatMul(x.matrix(), *weight, bias.data(), y.matrix()).ok());
      ASSERT_TRUE(
          ops_->MatMulLogits(x.matrix(), *weight, static_cast<float*>(logits.matrix().data), logits.matrix().stride)
              .ok());
      for (int64_t r = 0; r < rows; r += r < 4 ? 1 : 29) {
        for (int64_t o = 0; o < out; ++o) {
          const double want = reference::Dot(x.row(r), &w[o * in], in);
          ASSERT_NEAR(y.at(r, o), want + bias[o], 2e-5) << rows << " rows, " << in << " to " << out;
          ASSERT_NEAR(logits.at(r, o), want, 2e-5);
        }
      }
      EXPECT_TRUE(y.PaddingUntouched() && logits.PaddingUntouched());
    }
  }
}

TEST_P(MatMulTest, StacksPartsOfBothTypes) {
  std::vector<float> a = Random(5 * 64, 1), b = Random(40 * 64, 2);
  const std::vector<uint16_t> half = ToBfloat16(a);
  const std::vector<WeightPart> parts = {{half.data(), DType::kBFloat16, 5, 64}, {b.data(), DType::kFloat32, 40, 64}};
  auto weight = ops_->PrepareWeight(parts).value();
  Array x(*ops_, 6, 64, Random(6 * 64, 3)), y(*ops_, 6, 45);
  ASSERT_TRUE(ops_->MatMul(x.matrix(), *weight, nullptr, y.matrix()).ok());
  for (int64_t r = 0; r < 6; ++r) {
    for (int64_t o = 0; o < 45; ++o) {
      ASSERT_NEAR(y.at(r, o), reference::Dot(x.row(r), o < 5 ? &a[o * 64] : &b[(o - 5) * 64], 64), 3e-5);
    }
  }
  Array hidden(*ops_, 1, 64);  // a fused weight's rows can still be gathered
  ASSERT_TRUE(ops_->Embed({7}, *weight, 1, hidden.matrix()).ok());
  EXPECT_EQ(hidden.at(0, 63), b[2 * 64 + 63]);
}

TEST_P(MatMulTest, PartsWithoutDataAreRandomBySeed) {
  const int64_t in = 480, out = 96;
  const std::vector<WeightPart> parts = {{.rows = out, .cols = in, .seed = 7}, {.rows = out, .cols = in, .seed = 8}};
  auto weight = ops_->PrepareWeight(parts).value();
  Array row(*ops_, 1, in);
  std::vector<float> values;
  for (int32_t token = 0; token < 2 * out; ++token) {
    ASSERT_TRUE(ops_->Embed({token}, *weight, 1, row.matrix()).ok());
    for (int64_t c = 0; c < in; ++c) {
      ASSERT_EQ(row.at(0, c), RandomWeight(token < out ? 7 : 8, token % out * in + c, RandomWeightScale(in)));
      values.push_back(row.at(0, c));
    }
  }
  double sum = 0, squares = 0;
  for (const float value : values) {
    sum += value;
    squares += static_cast<double>(value) * value;
  }
  EXPECT_NEAR(sum / static_cast<double>(values.size()), 0, 1e-3);
  EXPECT_NEAR(squares / static_cast<double>(values.size()) * in, 1, 0.01);
  std::vector<float> as_bfloat16 = values;
  ToBfloat16(as_bfloat16);
  EXPECT_EQ(as_bfloat16, values);
}

// A row's result must not depend on the call it is part of: spans may cut a prompt anywhere.
TEST_P(MatMulTest, RowsDoNotDependOnTheirNeighbours) {
  const std::vector<float> w = Random(480 * 192, 1);
  const WeightPart part = {w.data(), DType::kFloat32, 192, 480};
  auto weight = ops_->PrepareWeight(absl::MakeConstSpan(&part, 1)).value();
  const int64_t rows = 389;
  Array x(*ops_, rows, 480, Random(rows * 480, 2)), whole(*ops_, rows, 192), cut(*ops_, rows, 192);
  ASSERT_TRUE(ops_->MatMul(x.matrix(), *weight, nullptr, whole.matrix()).ok());
  for (int64_t row = 0, count = 1; row < rows; row += count, count = std::min(2 * count + 1, rows - row)) {
    ASSERT_TRUE(ops_->MatMul(x.rows(row, count), *weight, nullptr, cut.rows(row, count)).ok());
  }
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t o = 0; o < 192; ++o) ASSERT_NEAR(whole.at(r, o), cut.at(r, o), 1e-4);
  }
}

INSTANTIATE_TEST_SUITE_P(All, MatMulTest, ::testing::ValuesIn(AllBackends()), BackendName);

}  // namespace
}  // namespace salamander::kernels
