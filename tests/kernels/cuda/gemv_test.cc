// Products of few rows against float64.
#include <cmath>

#include "tests/kernels/backend_fixture.h"
#include "tests/kernels/cuda/device_rows.h"

namespace salamander::kernels::cuda {
namespace {

struct Shape {
  int64_t in, out;
};
// Inputs on and around the 64 columns of a step, the 512 of a round of all warps and the 1024 and 2048 of the pipeline;
// outputs on and around tiles of 16 and 32.
constexpr Shape kShapes[] = {{8, 1},     {56, 15},   {64, 16},     {72, 17},    {128, 384}, {256, 128}, {320, 33},
                             {512, 31},  {520, 32},  {1016, 65},   {1024, 64},  {1032, 16}, {2048, 47}, {2056, 48},
                             {3080, 40}, {4096, 96}, {4096, 1000}, {16384, 80}, {64, 73448}};

class CudaGemvTest : public GpuTest {
 protected:
  // Compares y or logits of rows of the given stride with float64.
  void Compare(const Shape& shape, int64_t rows, bool logits, int64_t pad, int64_t lead) {
    const std::vector<float> x = Rounded(Random(rows * shape.in, 1)), w = Weights(shape);
    const DeviceRows device_x(rows, shape.in, x, pad, lead), y(rows, shape.out, {}, pad, lead);
    const DeviceArray<bf16> weight(ToBf16(w));
    const DeviceArray<float> scores(rows * (shape.out + pad));
    GemvParams params = {
        .x = device_x.const_rows(), .weight = weight.data(), .rows = rows, .in = shape.in, .out = shape.out};
    if (logits) {
      params.logits = scores.data();
      params.logits_stride = shape.out + pad;
    } else {
      params.y = y.rows();
    }
    ASSERT_EQ(Gemv(params, nullptr), cudaSuccess);
    Finish();
    const std::vector<float> got = y.Read(), got_logits = scores.Read();
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t o = 0; o < shape.out; ++o) {
        double want = 0, magnitude = 0;
        for (int64_t i = 0; i < shape.in; ++i) {
          const double product = static_cast<double>(x[r * shape.in + i]) * w[o * shape.in + i];
          want += product;
          magnitude += std::abs(product);
        }
        const double slack = 1e-6 * magnitude + 1e-6;
        if (logits) {
          ASSERT_NEAR(got_logits[r * (shape.out + pad) + o], want, slack) << Name(shape, rows) << r << " " << o;
        } else {
          ASSERT_TRUE(IsBf16Of(got[r * shape.out + o], want, slack)) << Name(shape, rows) << r << " " << o;
        }
      }
      for (int64_t c = shape.out; logits && c < shape.out + pad; ++c) {
        ASSERT_TRUE(std::isnan(got_logits[r * (shape.out + pad) + c])) << Name(shape, rows) << r << " " << c;
      }
    }
  }

  static std::vector<float> Weights(const Shape& shape) {
    return Rounded(Random(shape.in * shape.out, 2, 1 / std::sqrt(static_cast<float>(shape.in))));
  }
  static std::string Name(const Shape& shape, int64_t rows) {
    return std::to_string(shape.in) + " to " + std::to_string(shape.out) + ", " + std::to_string(rows) + " rows: ";
  }
};

// For compute-sanitizer (tests/gpu/run): few and many outputs, more inputs than the pipeline holds.
TEST_F(CudaGemvTest, SmallestOfEveryKernel) {
  for (int64_t rows : {3, 16}) {
    Compare({2120, 48}, rows, false, 8, 0);
    Compare({2120, 48}, rows, true, 3, 1);
  }
  Compare({64, 4616}, 16, false, 8, 0);  // just more than the kernel for few has
}

TEST_F(CudaGemvTest, EveryShape) {
  for (const Shape& shape : kShapes) {
    for (int64_t rows : {1, 3, 8, 9, 16}) Compare(shape, rows, rows == 3, 8, 0);
  }
}

TEST_F(CudaGemvTest, EveryNumberOfRows) {
  for (int64_t rows = 1; rows <= kGemvRows; ++rows) {
    Compare({328, 72}, rows, false, 8, 0);
    Compare({328, 72}, rows, true, 8, 0);
  }
}

TEST_F(CudaGemvTest, RowsAtAnyAddress) {
  for (int64_t rows : {1, 16}) {
    Compare({1096, 50}, rows, false, 3, 0);
    Compare({1096, 50}, rows, true, 8, 1);
  }
}

// What a row yields is the same, to the bit, beside any other rows.
TEST_F(CudaGemvTest, RowsDoNotDependOnTheirNumber) {
  const Shape shape = {4096, 272};
  const DeviceRows x(kGemvRows, shape.in, Random(kGemvRows * shape.in, 1));
  const DeviceArray<bf16> weight(ToBf16(Weights(shape)));
  std::vector<float> alone;
  for (int64_t r = 0; r < kGemvRows; ++r) {
    const DeviceRows y(1, shape.out);
    ASSERT_EQ(
        Gemv(
            {.x = x.const_rows(r), .weight = weight.data(), .rows = 1, .in = shape.in, .out = shape.out, .y = y.rows()},
            nullptr),
        cudaSuccess);
    Finish();
    const std::vector<float> row = y.Read();
    alone.insert(alone.end(), row.begin(), row.end());
  }
  for (int64_t rows : {2, 8, 9, 16}) {
    const DeviceRows y(rows, shape.out);
    ASSERT_EQ(Gemv({.x = x.const_rows(),
                    .weight = weight.data(),
                    .rows = rows,
                    .in = shape.in,
                    .out = shape.out,
                    .y = y.rows()},
                   nullptr),
              cudaSuccess);
    Finish();
    EXPECT_EQ(y.Read(), std::vector<float>(alone.begin(), alone.begin() + rows * shape.out)) << rows;
  }
}

// Kernels here start before those in front of them have ended: a chain in which each reads what the one before wrote
// yields the same, to the bit, whether the host waits for every kernel, for none, or replays them as a graph.
TEST_F(CudaGemvTest, ChainsWaitForWhatTheyRead) {
  const int64_t width = 4096, rows = 3;
  const int steps = 60;
  const std::vector<float> start = Random(rows * width, 1);
  const DeviceArray<bf16> weight(ToBf16(Weights({width, width})));
  const DeviceArray<float> norm(Random(width, 3));
  const FloatDeviceRows hidden(rows, width, start);
  const DeviceRows x(rows, width), y(rows, width, start);
  cudaStream_t stream;
  ASSERT_EQ(cudaStreamCreate(&stream), cudaSuccess);
  auto run = [&](bool wait) {
    for (int i = 0; i < steps; ++i) {
      ASSERT_EQ(AddRmsNorm(hidden.rows(), y.const_rows(), 0.5f, norm.data(), 1e-6f, 1, x.rows(), rows, width, stream),
                cudaSuccess);
      if (wait) Finish();
      ASSERT_EQ(
          Gemv({.x = x.const_rows(), .weight = weight.data(), .rows = rows, .in = width, .out = width, .y = y.rows()},
               stream),
          cudaSuccess);
      if (wait) Finish();
    }
  };
  run(true);
  const std::vector<float> want = hidden.Read();

  hidden.Write(start);
  y.Write(start);
  run(false);
  Finish();
  EXPECT_EQ(hidden.Read(), want);

  cudaGraph_t graph;
  cudaGraphExec_t replay;
  ASSERT_EQ(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), cudaSuccess);
  run(false);
  ASSERT_EQ(cudaStreamEndCapture(stream, &graph), cudaSuccess);
  ASSERT_EQ(cudaGraphInstantiate(&replay, graph, 0), cudaSuccess);
  for (int round = 0; round < 3; ++round) {
    hidden.Write(start);
    y.Write(start);
    ASSERT_EQ(cudaGraphLaunch(replay, stream), cudaSuccess);
    Finish();
    EXPECT_EQ(hidden.Read(), want) << round;
  }
  EXPECT_EQ(cudaGraphExecDestroy(replay), cudaSuccess);
  EXPECT_EQ(cudaGraphDestroy(graph), cudaSuccess);
  EXPECT_EQ(cudaStreamDestroy(stream), cudaSuccess);
}

TEST_F(CudaGemvTest, RefusesWhatItCannotDo) {
  const DeviceArray<bf16> memory(4096);
  const DeviceRows y(17, 8);
  GemvParams params = {.x = {memory.data(), 64}, .weight = memory.data(), .rows = 17, .in = 64, .out = 8};
  params.y = y.rows();
  EXPECT_NE(Gemv(params, nullptr), cudaSuccess);
  params.rows = 1;
  params.in = 60;
  EXPECT_NE(Gemv(params, nullptr), cudaSuccess);
  params.rows = 0;
  params.in = 64;
  EXPECT_EQ(Gemv(params, nullptr), cudaSuccess);
}

}  // namespace
}  // namespace salamander::kernels::cuda
