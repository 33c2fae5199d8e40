// The element-wise operations against float64.
#include <cmath>

#include "tests/kernels/backend_fixture.h"
#include "tests/kernels/reference.h"

namespace salamander::kernels {
namespace {

constexpr float kEps = 1e-6f;

class ElementwiseTest : public BackendTest {};

TEST_P(ElementwiseTest, EmbedGathersAndScales) {
  for (int64_t dim : {1, 15, 64, 192}) {
    const std::vector<float> table = Random(37 * dim, 1);
    const WeightPart part = {table.data(), DType::kFloat32, 37, dim};
    auto weight = ops_->PrepareWeight(absl::MakeConstSpan(&part, 1)).value();
    const std::vector<int32_t> tokens = {36, 0, 5, 5, 17};
    Array hidden(*ops_, tokens.size(), dim);
    ASSERT_TRUE(ops_->Embed(tokens, *weight, 12, hidden.matrix()).ok());
    for (size_t r = 0; r < tokens.size(); ++r) {
      for (int64_t c = 0; c < dim; ++c) ASSERT_EQ(hidden.at(r, c), table[tokens[r] * dim + c] * 12);
    }
    EXPECT_TRUE(hidden.PaddingUntouched());
  }
}

TEST_P(ElementwiseTest, AddRmsNormAddsAndNormalizes) {
  for (int64_t dim : {1, 17, 128, 192, 255}) {
    for (int64_t rows : {1, 5, 130}) {
      const std::vector<float> h = Random(rows * dim, 1), d = Random(rows * dim, 2), norm = Random(dim, 3);
      Array hidden(*ops_, rows, dim, h), delta(*ops_, rows, dim, d), x(*ops_, rows, dim);
      ASSERT_TRUE(ops_->AddRmsNorm(hidden.matrix(), delta.matrix(), 0.3f, norm.data(), kEps, 0.25f, x.matrix()).ok());
      for (int64_t r = 0; r < rows; ++r) {
        const reference::Vector want = reference::RmsNorm(hidden.row(r), dim, norm.data(), kEps);
        for (int64_t c = 0; c < dim; ++c) {
          ASSERT_NEAR(hidden.at(r, c), h[r * dim + c] + 0.3 * d[r * dim + c], 1e-6);
          ASSERT_NEAR(x.at(r, c), want[c] * 0.25, 2e-6);
        }
      }
      EXPECT_TRUE(hidden.PaddingUntouched() && x.PaddingUntouched());
    }
  }
}

TEST_P(ElementwiseTest, AddRmsNormWithoutDeltaOrOutput) {
  const std::vector<float> h = Random(3 * 64, 1), norm = Random(64, 2);
  Array hidden(*ops_, 3, 64, h), x(*ops_, 3, 64);
  ASSERT_TRUE(ops_->AddRmsNorm(hidden.matrix(), {}, 1, norm.data(), kEps, 1, x.matrix()).ok());
  EXPECT_EQ(hidden.values(), h);
  EXPECT_NEAR(x.at(2, 63), reference::RmsNorm(hidden.row(2), 64, norm.data(), kEps)[63], 2e-6);
  ASSERT_TRUE(ops_->AddRmsNorm(hidden.matrix(), x.matrix(), 2, nullptr, kEps, 1, {}).ok());
  EXPECT_NEAR(hidden.at(1, 7), h[64 + 7] + 2 * x.at(1, 7), 1e-6);
}

TEST_P(ElementwiseTest, HeadNormRopeAtFarPositions) {
  for (int64_t dim : {32, 64, 128}) {
    const int64_t heads = 3, rows = 7, width = heads * dim;
    const std::vector<int64_t> positions = {0, 1, 63, 1000, 131071, 1048575, 8000001};
    const std::vector<float> values = Random(rows * width, 1), norm = Random(dim, 2);
    Array x(*ops_, rows, width + 8, Random(rows * (width + 8), 3));
    for (int64_t r = 0; r < rows; ++r) std::memcpy(const_cast<float*>(x.row(r)), &values[r * width], width * 4);
    const float tail = x.at(3, width);
    ASSERT_TRUE(ops_->HeadNormRope(x.columns(0, width), dim, norm.data(), kEps, 10000, positions).ok());
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t h = 0; h < heads; ++h) {
        const reference::Vector want = reference::Rope(
            reference::RmsNorm(&values[r * width + h * dim], dim, norm.data(), kEps), positions[r], 1e4);
        for (int64_t c = 0; c < dim; ++c) ASSERT_NEAR(x.at(r, h * dim + c), want[c], 4e-6) << r << " " << c;
      }
    }
    EXPECT_EQ(x.at(3, width), tail);
  }
}

TEST_P(ElementwiseTest, HeadNormRopePartsCanBeLeftOut) {
  const std::vector<float> values = Random(64, 1), norm = Random(64, 2);
  const std::vector<int64_t> positions = {77};
  Array rotated(*ops_, 1, 64, values), normed(*ops_, 1, 64, values);
  ASSERT_TRUE(ops_->HeadNormRope(rotated.matrix(), 64, nullptr, kEps, 10000, positions).ok());
  ASSERT_TRUE(ops_->HeadNormRope(normed.matrix(), 64, norm.data(), kEps, 0, positions).ok());
  const reference::Vector rope = reference::Rope(reference::Vector(values.begin(), values.end()), 77, 1e4);
  const reference::Vector rms = reference::RmsNorm(values.data(), 64, norm.data(), kEps);
  for (int64_t c = 0; c < 64; ++c) {
    EXPECT_NEAR(rotated.at(0, c), rope[c], 2e-6);
    EXPECT_NEAR(normed.at(0, c), rms[c], 2e-6);
  }
}

TEST_P(ElementwiseTest, SiluMul) {
  for (int64_t width : {1, 31, 480}) {
    std::vector<float> values = Random(9 * 2 * width, 1, 4);
    values[0] = -200;  // the sigmoid underflows, and must do so to zero
    Array gate_up(*ops_, 9, 2 * width, values), out(*ops_, 9, width);
    ASSERT_TRUE(ops_->SiluMul(gate_up.matrix(), out.matrix()).ok());
    for (int64_t r = 0; r < 9; ++r) {
      for (int64_t c = 0; c < width; ++c) {
        const double g = gate_up.at(r, c), want = g * reference::Sigmoid(g) * gate_up.at(r, width + c);
        ASSERT_NEAR(out.at(r, c), want, 1e-6 * (1 + std::abs(want)));
      }
    }
    EXPECT_TRUE(out.PaddingUntouched());
  }
}

TEST_P(ElementwiseTest, NormGateAndItsParts) {
  const int64_t width = 259;
  const std::vector<float> values = Random(5 * width, 1), gates = Random(5 * width, 2, 3), norm = Random(width, 3);
  for (bool with_norm : {false, true}) {
    for (bool with_gate : {false, true}) {
      Array x(*ops_, 5, width, values), gate(*ops_, 5, width, gates);
      ASSERT_TRUE(
          ops_->NormGate(x.matrix(), with_norm ? norm.data() : nullptr, kEps, with_gate ? gate.matrix() : Matrix{})
              .ok());
      for (int64_t r = 0; r < 5; ++r) {
        const reference::Vector rms = reference::RmsNorm(&values[r * width], width, norm.data(), kEps);
        for (int64_t c = 0; c < width; ++c) {
          const double normed = with_norm ? rms[c] : values[r * width + c];
          ASSERT_NEAR(x.at(r, c), with_gate ? normed * reference::Sigmoid(gates[r * width + c]) : normed, 2e-6);
        }
      }
      EXPECT_TRUE(x.PaddingUntouched());
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, ElementwiseTest, ::testing::ValuesIn(AllBackends()), BackendName);

TEST(CreateCpuOpsTest, RefusesWhatItCannotDo) {
  EXPECT_EQ(CreateCpuOps(0).status().code(), absl::StatusCode::kInvalidArgument);
  if (DetectCpuIsa() < CpuIsa::kAvx512) {
    EXPECT_EQ(CreateCpuOps(1, CpuIsa::kAvx512).status().code(), absl::StatusCode::kInvalidArgument);
  }
  EXPECT_EQ(CreateCpuOps(2, CpuIsa::kPortable).value()->name(), "cpu (portable, 2 threads)");
}

TEST(CreateCpuOpsTest, AllocatesAlignedAndRefusesTheImpossible) {
  auto ops = CreateCpuOps(1).value();
  void* memory = ops->Allocate(100).value();
  EXPECT_EQ(reinterpret_cast<uintptr_t>(memory) % 64, 0u);
  ops->Free(memory);
  EXPECT_EQ(ops->Allocate(int64_t{1} << 60).status().code(), absl::StatusCode::kResourceExhausted);
}

TEST(CreateCpuOpsTest, CopiersAndEventsOfOtherThreads) {
  auto ops = CreateCpuOps(1).value();
  EXPECT_TRUE(ops->host_memory());
  EXPECT_GT(ops->MemoryBytes().value(), 0);
  const std::shared_ptr<Event> event = ops->Record();
  EXPECT_TRUE(event->Done());
  EXPECT_TRUE(event->Wait().ok());
  void* memory = ops->Allocate(16).value();
  void* host = ops->AllocateHost(16).value();
  auto copier = ops->NewCopier().value();
  ASSERT_TRUE(copier->ToDevice(memory, "some sixteen by", 16).ok());
  ASSERT_TRUE(copier->OnDevice(static_cast<char*>(memory) + 8, memory, 8).ok());
  ASSERT_TRUE(copier->ToHost(host, memory, 16).ok());
  ASSERT_TRUE(copier->Wait().ok());
  EXPECT_EQ(std::string(static_cast<const char*>(host), 16), "some sixsome six");
  ops->FreeHost(host);
  ops->Free(memory);
}

}  // namespace
}  // namespace salamander::kernels
