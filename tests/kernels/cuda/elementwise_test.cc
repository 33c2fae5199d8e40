// The row-wise CUDA kernels against float64.
#include <cmath>

#include "tests/kernels/backend_fixture.h"
#include "tests/kernels/cuda/device_rows.h"
#include "tests/kernels/reference.h"

namespace salamander::kernels::cuda {
namespace {

constexpr float kEps = 1e-6f;
// Of float32 arithmetic on numbers around one.
constexpr double kSlack = 1e-5;

struct Placement {
  int64_t pad, lead;
};
// With 16-byte accesses, and without: by the stride, and by the address.
constexpr Placement kPlacements[] = {{16, 0}, {3, 0}, {16, 1}};
// On and around 256 and 512 pieces of eight, where threads take one, two and four; sizes of small test models.
constexpr int64_t kWidths[] = {1, 7, 8, 128, 256, 320, 513, 2048, 2056, 4095, 4096, 4104, 16384};

class CudaElementwiseTest : public GpuTest {};

TEST_F(CudaElementwiseTest, EmbedGathersAndScales) {
  for (int64_t width : kWidths) {
    const std::vector<float> table = Rounded(Random(37 * width, 1));
    const DeviceArray<bf16> device_table(ToBf16(table));
    const std::vector<int32_t> ids = {36, 0, 5, 5, 17};
    const DeviceArray<int32_t> tokens(ids);
    for (const Placement& place : kPlacements) {
      const FloatDeviceRows hidden(5, width, {}, place.pad, place.lead);
      ASSERT_EQ(Embed(tokens.data(), 5, width, device_table.data(), 12, hidden.rows(), nullptr), cudaSuccess);
      Finish();
      const std::vector<float> got = hidden.Read();
      for (int64_t i = 0; i < 5 * width; ++i) {
        ASSERT_EQ(got[i], table[ids[i / width] * width + i % width] * 12) << width << " " << i;
      }
    }
  }
}

TEST_F(CudaElementwiseTest, AddRmsNormAddsAndNormalizes) {
  for (int64_t width : kWidths) {
    for (int64_t rows : {1, 5, 67}) {
      const std::vector<float> h = Random(rows * width, 1), d = Rounded(Random(rows * width, 2));
      const std::vector<float> norm = Random(width, 3);
      const DeviceArray<float> device_norm(norm);
      for (const Placement& place : kPlacements) {
        const FloatDeviceRows hidden(rows, width, h, place.pad, place.lead);
        const DeviceRows delta(rows, width, d, place.pad, place.lead), x(rows, width, {}, place.pad, place.lead);
        ASSERT_EQ(AddRmsNorm(hidden.rows(), delta.const_rows(), 0.3f, device_norm.data(), kEps, 0.25f, x.rows(), rows,
                             width, nullptr),
                  cudaSuccess);
        Finish();
        const std::vector<float> sums = hidden.Read(), got = x.Read();
        for (int64_t r = 0; r < rows; ++r) {
          const reference::Vector want = reference::RmsNorm(&sums[r * width], width, norm.data(), kEps);
          for (int64_t c = 0; c < width; ++c) {
            const int64_t i = r * width + c;
            ASSERT_NEAR(sums[i], h[i] + 0.3 * d[i], 1e-6) << width << " " << r << " " << c;
            ASSERT_TRUE(IsBf16Of(got[i], want[c] * 0.25, kSlack)) << width << " " << r << " " << c;
          }
        }
      }
    }
  }
}

TEST_F(CudaElementwiseTest, AddRmsNormWithoutDeltaOrOutput) {
  const std::vector<float> h = Random(3 * 64, 1), d = Rounded(Random(3 * 64, 2)), norm = Random(64, 3);
  const FloatDeviceRows hidden(3, 64, h);
  const DeviceRows delta(3, 64, d), x(3, 64);
  const DeviceArray<float> device_norm(norm);
  ASSERT_EQ(AddRmsNorm(hidden.rows(), {}, 1, device_norm.data(), kEps, 1, x.rows(), 3, 64, nullptr), cudaSuccess);
  Finish();
  EXPECT_EQ(hidden.Read(), h);
  EXPECT_TRUE(IsBf16Of(x.Read()[2 * 64 + 63], reference::RmsNorm(&h[2 * 64], 64, norm.data(), kEps)[63], kSlack));
  ASSERT_EQ(AddRmsNorm(hidden.rows(), delta.const_rows(), 2, nullptr, kEps, 1, {}, 3, 64, nullptr), cudaSuccess);
  Finish();
  EXPECT_NEAR(hidden.Read()[64 + 7], h[64 + 7] + 2.0 * d[64 + 7], 1e-6);
}

// Of one launch with all rows, and of one with each alone.
TEST_F(CudaElementwiseTest, RowsDoNotDependOnTheirNumber) {
  const int64_t rows = 9, width = 4096;
  const std::vector<float> h = Random(rows * width, 1), d = Random(rows * width, 2);
  const DeviceArray<float> norm(Random(width, 3));
  const FloatDeviceRows hidden(rows, width, h), alone(rows, width, h);
  const DeviceRows delta(rows, width, d), x(rows, width), x_alone(rows, width);
  ASSERT_EQ(AddRmsNorm(hidden.rows(), delta.const_rows(), 0.3f, norm.data(), kEps, 1, x.rows(), rows, width, nullptr),
            cudaSuccess);
  for (int64_t r = 0; r < rows; ++r) {
    ASSERT_EQ(
        AddRmsNorm(alone.rows(r), delta.const_rows(r), 0.3f, norm.data(), kEps, 1, x_alone.rows(r), 1, width, nullptr),
        cudaSuccess);
  }
  Finish();
  EXPECT_EQ(hidden.Read(), alone.Read());
  EXPECT_EQ(x.Read(), x_alone.Read());
}

void ExpectHeads(const std::vector<float>& got, const std::vector<float>& values, int64_t heads, int64_t dim,
                 const float* norm, const std::vector<int64_t>& positions) {
  for (size_t r = 0; r < positions.size(); ++r) {
    for (int64_t h = 0; h < heads; ++h) {
      const float* x = &values[(r * heads + h) * dim];
      const reference::Vector normed =
          norm != nullptr ? reference::RmsNorm(x, dim, norm, kEps) : reference::Vector(x, x + dim);
      const reference::Vector want = reference::Rope(normed, positions[r], 1e4);
      for (int64_t c = 0; c < dim; ++c) {
        const float g = got[(r * heads + h) * dim + c];
        ASSERT_TRUE(IsBf16Of(g, want[c], kSlack)) << dim << " " << positions[r] << " " << h << " " << c;
      }
    }
  }
}

TEST_F(CudaElementwiseTest, HeadNormRopeAtFarPositions) {
  for (int64_t dim : {32, 64, 128}) {
    // Up to more pieces than the threads of a block take at once, and numbers of heads that leave part of a warp.
    for (int64_t heads : {1, 3, 32, 65}) {
      const std::vector<int64_t> positions = {0, 1, 63, 1000, 131071, 1048575, 8000001};
      const int64_t rows = positions.size(), width = heads * dim;
      const std::vector<float> values = Rounded(Random(rows * width, 1)), norm = Random(dim, 2);
      const DeviceArray<float> device_norm(norm);
      const DeviceArray<int64_t> device_positions(positions);
      for (const Placement& place : kPlacements) {
        const DeviceRows x(rows, width, values, place.pad, place.lead);
        ASSERT_EQ(HeadNormRope(x.rows(), rows, heads, dim, device_norm.data(), kEps, 1e4, device_positions.data(), 0,
                               nullptr),
                  cudaSuccess);
        Finish();
        ExpectHeads(x.Read(), values, heads, dim, norm.data(), positions);
      }
    }
  }
}

TEST_F(CudaElementwiseTest, HeadNormRopePartsCanBeLeftOut) {
  const int64_t rows = 50, heads = 4, dim = 128, first = 1048000;
  const std::vector<float> values = Rounded(Random(rows * heads * dim, 1)), norm = Random(dim, 2);
  const DeviceArray<float> device_norm(norm);
  std::vector<int64_t> positions;
  for (int64_t i = 0; i < rows; ++i) positions.push_back(first + i);
  const DeviceRows rotated(rows, heads * dim, values), normed(rows, heads * dim, values);
  ASSERT_EQ(HeadNormRope(rotated.rows(), rows, heads, dim, nullptr, kEps, 1e4, nullptr, first, nullptr), cudaSuccess);
  ASSERT_EQ(HeadNormRope(normed.rows(), rows, heads, dim, device_norm.data(), kEps, 0, nullptr, first, nullptr),
            cudaSuccess);
  Finish();
  ExpectHeads(rotated.Read(), values, heads, dim, nullptr, positions);
  const std::vector<float> got = normed.Read();
  for (int64_t i = 0; i < rows * heads; ++i) {
    const reference::Vector want = reference::RmsNorm(&values[i * dim], dim, norm.data(), kEps);
    for (int64_t c = 0; c < dim; ++c) ASSERT_TRUE(IsBf16Of(got[i * dim + c], want[c], kSlack)) << i << " " << c;
  }
}

TEST_F(CudaElementwiseTest, HeadNormRopeRefusesOtherHeads) {
  const DeviceRows x(1, 96);
  EXPECT_NE(HeadNormRope(x.rows(), 1, 1, 96, nullptr, kEps, 1e4, nullptr, 0, nullptr), cudaSuccess);
}

TEST_F(CudaElementwiseTest, SiluMul) {
  for (int64_t width : kWidths) {
    std::vector<float> values = Rounded(Random(9 * 2 * width, 1, 4));
    values[0] = -200;  // the sigmoid underflows, and must do so to zero
    for (const Placement& place : kPlacements) {
      const DeviceRows gate_up(9, 2 * width, values, place.pad, place.lead);
      const DeviceRows out(9, width, {}, place.pad, place.lead);
      ASSERT_EQ(SiluMul(gate_up.const_rows(), out.rows(), 9, width, nullptr), cudaSuccess);
      Finish();
      const std::vector<float> got = out.Read();
      for (int64_t i = 0; i < 9 * width; ++i) {
        const float* row = &values[i / width * 2 * width];
        const double g = row[i % width], want = g * reference::Sigmoid(g) * row[width + i % width];
        ASSERT_TRUE(IsBf16Of(got[i], want, kSlack)) << width << " " << i << " " << g;
      }
    }
  }
}

TEST_F(CudaElementwiseTest, NormGateAndItsParts) {
  for (int64_t width : kWidths) {
    const std::vector<float> values = Rounded(Random(5 * width, 1)), gates = Rounded(Random(5 * width, 2, 3));
    const std::vector<float> norm = Random(width, 3);
    const DeviceArray<float> device_norm(norm);
    for (const Placement& place : kPlacements) {
      for (int parts = 0; parts < 4; ++parts) {
        const bool with_norm = parts % 2 == 1, with_gate = parts / 2 == 1;
        const DeviceRows x(5, width, values, place.pad, place.lead), gate(5, width, gates, place.pad, place.lead);
        ASSERT_EQ(NormGate(x.rows(), with_norm ? device_norm.data() : nullptr, kEps,
                           with_gate ? gate.const_rows() : ConstRows{}, 5, width, nullptr),
                  cudaSuccess);
        Finish();
        const std::vector<float> got = x.Read();
        for (int64_t r = 0; r < 5; ++r) {
          const reference::Vector rms = reference::RmsNorm(&values[r * width], width, norm.data(), kEps);
          for (int64_t c = 0; c < width; ++c) {
            const int64_t i = r * width + c;
            const double normed = with_norm ? rms[c] : values[i];
            const double want = with_gate ? normed * reference::Sigmoid(gates[i]) : normed;
            ASSERT_TRUE(IsBf16Of(got[i], want, kSlack)) << width << " " << parts << " " << r << " " << c;
          }
        }
      }
    }
  }
}

TEST_F(CudaElementwiseTest, AddBias) {
  for (int64_t width : kWidths) {
    const std::vector<float> values = Rounded(Random(5 * width, 1)), bias = Random(width, 2);
    const DeviceArray<float> device_bias(bias);
    for (const Placement& place : kPlacements) {
      const DeviceRows y(5, width, values, place.pad, place.lead);
      ASSERT_EQ(AddBias(y.rows(), device_bias.data(), 5, width, nullptr), cudaSuccess);
      Finish();
      const std::vector<float> got = y.Read();
      for (int64_t i = 0; i < 5 * width; ++i) {
        ASSERT_TRUE(IsBf16Of(got[i], static_cast<double>(values[i]) + bias[i % width], 1e-7)) << width << " " << i;
      }
    }
  }
}

TEST_F(CudaElementwiseTest, NoRowsAreNoLaunch) {
  const DeviceRows x(1, 64);
  const FloatDeviceRows hidden(1, 64);
  EXPECT_EQ(Embed(nullptr, 0, 64, nullptr, 1, hidden.rows(), nullptr), cudaSuccess);
  EXPECT_EQ(AddRmsNorm(hidden.rows(), {}, 1, nullptr, kEps, 1, x.rows(), 0, 64, nullptr), cudaSuccess);
  EXPECT_EQ(HeadNormRope(x.rows(), 0, 1, 64, nullptr, kEps, 1e4, nullptr, 0, nullptr), cudaSuccess);
  EXPECT_EQ(SiluMul(x.const_rows(), x.rows(), 0, 32, nullptr), cudaSuccess);
  EXPECT_EQ(NormGate(x.rows(), nullptr, kEps, {}, 0, 64, nullptr), cudaSuccess);
  EXPECT_EQ(AddBias(x.rows(), nullptr, 0, 64, nullptr), cudaSuccess);
}

}  // namespace
}  // namespace salamander::kernels::cuda
