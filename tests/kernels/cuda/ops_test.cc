// The CUDA backend as programs see it: through Ops, beside the CPU's. Inputs are rounded to bf16 on both sides. What
// single kernels compute has tests of its own; these are about what lies between an Ops and its kernels.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <thread>

#include "absl/strings/str_format.h"
#include "tests/kernels/cuda/ops_fixture.h"

namespace salamander::kernels {
namespace {

using ::testing::FloatNear;
using ::testing::HasSubstr;
using ::testing::Pointwise;

TEST_F(CudaOpsTest, MemoryIsAlignedCountedAndRefusedByName) {
  EXPECT_THAT(gpu_->name(), HasSubstr("cuda ("));
  EXPECT_FALSE(gpu_->host_memory());
  EXPECT_GT(gpu_->own_bytes(), 0);
  const int64_t before = gpu_->MemoryBytes().value();
  constexpr int64_t kBytes = int64_t{1} << 30;
  void* memory = gpu_->Allocate(kBytes).value();
  EXPECT_EQ(reinterpret_cast<uintptr_t>(memory) % 256, 0u);
  EXPECT_NEAR(static_cast<double>(before - gpu_->MemoryBytes().value()), kBytes, 64 << 20);
  gpu_->Free(memory);
  ASSERT_TRUE(gpu_->Synchronize().ok());
  EXPECT_NEAR(static_cast<double>(gpu_->MemoryBytes().value()), before, 64 << 20);
  const absl::Status refused = gpu_->Allocate(int64_t{1} << 50).status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(refused.message(), HasSubstr("no 1125899906842624 bytes of device memory"));
  EXPECT_TRUE(gpu_->Synchronize().ok());
}

TEST_F(CudaOpsTest, CopiesOfAnySizeFromAndToAnyHostMemory) {
  // Around the sizes at which copies take another way: a list's, and pieces of 4 MiB.
  for (const int64_t bytes : {1, 1000, 524288, 524289, 4194304, 4194305, 13000001}) {
    std::vector<uint8_t> values(bytes), back(bytes);
    for (int64_t i = 0; i < bytes; ++i) values[i] = static_cast<uint8_t>(i * 7 + i / 256);
    OpsArray<uint8_t> memory(*gpu_, bytes);
    auto* pinned = static_cast<uint8_t*>(gpu_->AllocateHost(bytes).value());
    std::vector<uint8_t> source = values;
    ASSERT_TRUE(gpu_->CopyToDevice(memory.data(), source.data(), bytes).ok());
    std::fill(source.begin(), source.end(), 0);  // free to change at once
    EXPECT_EQ(memory.Read(), values);
    ASSERT_TRUE(gpu_->CopyToHost(pinned, memory.data(), bytes).ok());
    ASSERT_TRUE(gpu_->Synchronize().ok());
    EXPECT_TRUE(std::equal(values.begin(), values.end(), pinned));
    ASSERT_TRUE(gpu_->Zero(memory.data(), bytes).ok());
    EXPECT_EQ(memory.Read(), back);
    ASSERT_TRUE(gpu_->CopyToDevice(memory.data(), pinned, bytes).ok());
    EXPECT_EQ(memory.Read(), values);
    gpu_->FreeHost(pinned);
  }
}

TEST_F(CudaOpsTest, CopiersAndEventsOfOtherThreads) {
  constexpr int64_t kBytes = 9000001;
  std::vector<uint8_t> values(kBytes);
  for (int64_t i = 0; i < kBytes; ++i) values[i] = static_cast<uint8_t>(i * 11 + i / 512);
  OpsArray<uint8_t> first(*gpu_, kBytes), second(*gpu_, kBytes);
  const auto weight = Prepare(*gpu_, Random(1024 * 1024, 1, 0.03f), 1024, 1024);
  OpsRows x(*gpu_, 4096, 1024, Bf16Random(4096 * 1024, 2)), y(*gpu_, 4096, 1024);
  for (int i = 0; i < 50; ++i) ASSERT_TRUE(gpu_->MatMul(x.matrix(), *weight, nullptr, y.matrix()).ok());
  const std::shared_ptr<Event> event = gpu_->Record();
  std::vector<uint8_t> back(kBytes), pinned_back;
  std::thread other([&] {
    auto copier = gpu_->NewCopier().value();
    EXPECT_TRUE(copier->ToDevice(first.data(), values.data(), kBytes).ok());
    EXPECT_TRUE(copier->OnDevice(second.data(), first.data(), kBytes).ok());
    EXPECT_TRUE(copier->ToHost(back.data(), second.data(), kBytes).ok());
    EXPECT_TRUE(copier->Wait().ok());
    // In pieces that are all under way at once, by way of pinned memory of this thread.
    auto* pinned = static_cast<uint8_t*>(gpu_->AllocateHost(kBytes).value());
    std::copy(values.rbegin(), values.rend(), pinned);
    constexpr int64_t kPiece = 1000000;
    auto pieces = [&](auto copy) {
      for (int64_t at = 0; at < kBytes; at += kPiece) EXPECT_TRUE(copy(at, std::min(kPiece, kBytes - at)).ok());
      EXPECT_TRUE(copier->Wait().ok());
    };
    pieces([&](int64_t at, int64_t bytes) { return copier->ToDevice(first.data() + at, pinned + at, bytes); });
    std::fill(pinned, pinned + kBytes, 0);
    pieces([&](int64_t at, int64_t bytes) { return copier->ToHost(pinned + at, first.data() + at, bytes); });
    pinned_back.assign(pinned, pinned + kBytes);
    gpu_->FreeHost(pinned);
    EXPECT_TRUE(event->Wait().ok());
    EXPECT_TRUE(event->Done());
  });
  other.join();
  EXPECT_EQ(back, values);
  EXPECT_TRUE(std::equal(values.rbegin(), values.rend(), pinned_back.begin(), pinned_back.end()));
}

TEST_F(CudaOpsTest, WeightsAreStackedOfAllKindsOfParts) {
  // More than a staged piece each, and at odd addresses as checkpoints have them.
  constexpr int64_t kIn = 1000, kOut = 2500;
  const std::vector<float> values = Random(kOut * kIn, 1);
  std::vector<char> floats(values.size() * 4 + 1), halves(values.size() * 2 + 1);
  std::memcpy(floats.data() + 1, values.data(), values.size() * 4);
  for (size_t i = 0; i < values.size(); ++i) {
    const uint16_t bits = ToBits(values[i]);
    std::memcpy(halves.data() + 1 + 2 * i, &bits, 2);
  }
  const std::vector<WeightPart> parts = {{floats.data() + 1, DType::kFloat32, kOut, kIn},
                                         {.rows = kOut, .cols = kIn, .seed = 5},
                                         {halves.data() + 1, DType::kBFloat16, kOut, kIn}};
  const auto weight = gpu_->PrepareWeight(parts).value(), want = cpu_->PrepareWeight(parts).value();
  EXPECT_EQ(weight->bytes(), 3 * kOut * kIn * 2);
  EXPECT_EQ(weight->out_features(), 3 * kOut);
  std::vector<int32_t> tokens;
  for (int32_t token = 0; token < 3 * kOut; token += 61) tokens.push_back(token);
  const auto rows = static_cast<int64_t>(tokens.size());
  FloatOpsRows got(*gpu_, rows, kIn);
  Array expected(*cpu_, rows, kIn);
  ASSERT_TRUE(gpu_->Embed(tokens, *weight, 1, got.matrix()).ok());
  ASSERT_TRUE(cpu_->Embed(tokens, *want, 1, expected.matrix()).ok());
  std::vector<float> rounded = expected.values();
  for (float& value : rounded) value = FromBits(ToBits(value));
  EXPECT_EQ(got.Read(), rounded);
}

TEST_F(CudaOpsTest, ProductsOfAnyShape) {
  // OpsRows on both sides of the few-row kernel's limit; sizes that are no multiples of 8 last.
  for (auto [in, out] :
       std::vector<std::pair<int64_t, int64_t>>{{192, 960}, {320, 128}, {64, 48}, {128, 130}, {33, 7}}) {
    const std::vector<float> w = Bf16Random(in * out, 1, 1 / std::sqrt(static_cast<float>(in)));
    const std::vector<float> bias = Random(out, 2);
    const auto weight = Prepare(*gpu_, w, out, in), cpu_weight = Prepare(*cpu_, w, out, in);
    const OpsArray<float> gpu_bias(*gpu_, bias);
    for (const int64_t rows : {1, 2, 16, 17, 64, 130, 300}) {
      SCOPED_TRACE(absl::StrFormat("%d x %d x %d", rows, in, out));
      const std::vector<float> values = Bf16Random(rows * in, 3);
      OpsRows x(*gpu_, rows, in, values), y(*gpu_, rows, out), with_bias(*gpu_, rows, out);
      OpsArray<float> logits(*gpu_, std::vector<float>(rows * (out + 4), NAN));
      Array cpu_x(*cpu_, rows, in, values), want(*cpu_, rows, out), want_bias(*cpu_, rows, out);
      ASSERT_TRUE(cpu_->MatMul(cpu_x.matrix(), *cpu_weight, nullptr, want.matrix()).ok());
      ASSERT_TRUE(cpu_->MatMul(cpu_x.matrix(), *cpu_weight, bias.data(), want_bias.matrix()).ok());
      absl::Status status = gpu_->MatMul(x.matrix(), *weight, nullptr, y.matrix());
      ASSERT_TRUE(status.ok()) << status;
      status = gpu_->MatMul(x.matrix(), *weight, gpu_bias.data(), with_bias.matrix());
      ASSERT_TRUE(status.ok()) << status;
      status = gpu_->MatMulLogits(x.matrix(), *weight, logits.data(), out + 4);
      ASSERT_TRUE(status.ok()) << status;
      ExpectClose(y.Read(), want.values());
      ExpectClose(with_bias.Read(), want_bias.values(), 2e-2f);  // rounded twice
      const std::vector<float> got = logits.Read();
      for (int64_t r = 0; r < rows; ++r) {
        for (int64_t o = 0; o < out; ++o) ASSERT_NEAR(got[r * (out + 4) + o], want.at(r, o), 1e-4);
        for (int64_t o = out; o < out + 4; ++o) ASSERT_TRUE(std::isnan(got[r * (out + 4) + o]));
      }
    }
  }
}

TEST_F(CudaOpsTest, ElementwiseAsOnCpu) {
  constexpr int64_t kRows = 37, kDim = 64, kCols = 3 * kDim;
  const std::vector<float> a = Bf16Random(kRows * kCols, 1), b = Bf16Random(kRows * kCols, 2), norm = Random(kCols, 3);
  const OpsArray<float> gpu_norm(*gpu_, norm);
  FloatOpsRows h(*gpu_, kRows, kCols, a);
  OpsRows d(*gpu_, kRows, kCols, b), x(*gpu_, kRows, kCols), half(*gpu_, kRows, kDim), gate(*gpu_, kRows, kCols, a);
  Array ch(*cpu_, kRows, kCols, a), cd(*cpu_, kRows, kCols, b), cx(*cpu_, kRows, kCols), chalf(*cpu_, kRows, kDim);
  Array cgate(*cpu_, kRows, kCols, a);
  ASSERT_TRUE(gpu_->AddRmsNorm(h.matrix(), d.matrix(), 0.3f, gpu_norm.data(), kEps, 0.5f, x.matrix()).ok());
  ASSERT_TRUE(cpu_->AddRmsNorm(ch.matrix(), cd.matrix(), 0.3f, norm.data(), kEps, 0.5f, cx.matrix()).ok());
  EXPECT_THAT(h.Read(), Pointwise(FloatNear(1e-6f), ch.values()));
  ExpectClose(x.Read(), cx.values());

  ASSERT_TRUE(gpu_->NormGate(d.matrix(), gpu_norm.data(), kEps, gate.matrix()).ok());
  ASSERT_TRUE(cpu_->NormGate(cd.matrix(), norm.data(), kEps, cgate.matrix()).ok());
  ExpectClose(d.Read(), cd.values(), 1e-2f);

  ASSERT_TRUE(gpu_->SiluMul(x.columns(0, 2 * kDim), half.matrix()).ok());
  ASSERT_TRUE(cpu_->SiluMul(cx.columns(0, 2 * kDim), chalf.matrix()).ok());
  ExpectClose(half.Read(), chalf.values(), 1e-2f);

  // Positions of a span, which need no list, and of a batch, which do.
  std::vector<int64_t> positions(kRows);
  for (const int64_t step : {1, 1001}) {
    for (int64_t i = 0; i < kRows; ++i) positions[i] = 500 + i * step;
    OpsRows q(*gpu_, kRows, kCols, a);
    Array cq(*cpu_, kRows, kCols, a);
    const Matrix two_heads = q.columns(kDim, 2 * kDim);
    ASSERT_TRUE(gpu_->HeadNormRope(two_heads, kDim, gpu_norm.data(), kEps, 10000, positions).ok());
    ASSERT_TRUE(cpu_->HeadNormRope(cq.columns(kDim, 2 * kDim), kDim, norm.data(), kEps, 10000, positions).ok());
    ExpectClose(q.Read(), cq.values(), 1e-2f);
  }
}

// Far more lists than the ring holds, queued without a wait.
TEST_F(CudaOpsTest, ListsAreNotOverwrittenBeforeTheyAreRead) {
  constexpr int64_t kRows = 8192, kCalls = 300, kDim = 8;
  std::vector<float> table(kCalls * kDim);
  for (int64_t i = 0; i < kCalls * kDim; ++i) table[i] = static_cast<float>(i / kDim % 256);
  const auto weight = Prepare(*gpu_, table, kCalls, kDim);
  std::vector<std::unique_ptr<FloatOpsRows>> outs;
  for (int64_t call = 0; call < kCalls; ++call) {
    outs.push_back(std::make_unique<FloatOpsRows>(*gpu_, kRows, kDim));
  }
  for (int32_t call = 0; call < kCalls; ++call) {
    ASSERT_TRUE(gpu_->Embed(std::vector<int32_t>(kRows, call), *weight, 1, outs[call]->matrix()).ok());
  }
  for (int64_t call = 0; call < kCalls; call += 13) {
    const std::vector<float> values = outs[call]->Read();
    EXPECT_EQ(std::count(values.begin(), values.end(), static_cast<float>(call % 256)), kRows * kDim) << call;
  }
}

// More edits than one list carries, and rows without any between them; the model's logits stay.
TEST_F(CudaOpsTest, DrawsWithManyEdits) {
  constexpr int64_t kVocab = 73448, kRows = 4;
  std::vector<float> values = Random(kRows * kVocab, 1, 3);
  std::vector<SampleRow> rows(kRows, {.temperature = 0.8f, .top_p = 0.9f, .random = uint64_t{1} << 51, .logprobs = 0});
  std::vector<LogitEdit> edits;
  for (const int32_t row : {1, 3}) {
    for (int32_t token = 0; token < kVocab; ++token) edits.push_back({row, token, 1.5f, 0.01f * (token % 7)});
  }
  const OpsArray<float> logits(*gpu_, values);
  std::vector<SampledToken> got(kRows), want(kRows);
  ASSERT_TRUE(gpu_->Sample({logits.data(), kRows, kVocab, kVocab}, rows, edits, got.data(), nullptr, 0).ok());
  ASSERT_TRUE(gpu_->Synchronize().ok());
  ASSERT_TRUE(cpu_->Sample({values.data(), kRows, kVocab, kVocab}, rows, edits, want.data(), nullptr, 0).ok());
  for (int64_t row = 0; row < kRows; ++row) {
    EXPECT_EQ(got[row].token, want[row].token) << row;
    EXPECT_NEAR(got[row].logprob, want[row].logprob, 1e-4) << row;
  }
  EXPECT_EQ(logits.Read(), values);
}

TEST_F(CudaOpsTest, ShapesThatNoKernelHasAreRefusedByName) {
  OpsRows x(*gpu_, 1, 96);
  EXPECT_THAT(gpu_->HeadNormRope(x.matrix(), 48, nullptr, kEps, 0, {{0}}).message(),
              HasSubstr("head_norm_rope: head_dim must be 32, 64 or 128, got 48"));
  const SparseRows rows = {0, 1, 0, nullptr};
  const SparseShape grouped = {.heads = 32, .kv = {1, 64, DType::kBFloat16}, .top_blocks = 4};
  EXPECT_THAT(gpu_->AttendDense(grouped, x.matrix(), {rows}, x.matrix()).message(),
              HasSubstr("attend_dense: heads / kv_heads must be at most 16, got 32"));
  const SparseShape uneven = {.heads = 5, .kv = {2, 64, DType::kBFloat16}, .top_blocks = 4};
  EXPECT_THAT(gpu_->AttendDense(uneven, x.matrix(), {rows}, x.matrix()).message(),
              HasSubstr("kv_heads must divide 5 heads, got 2"));
  EXPECT_TRUE(gpu_->Synchronize().ok());
}

TEST_F(CudaOpsTest, TimesOpsWhenAsked) {
  OpsRows x(*gpu_, 64, 128, Bf16Random(64 * 128, 1)), out(*gpu_, 64, 64);
  auto seconds = [&] {
    for (const auto& [name, value] : gpu_->OpSeconds()) {
      if (name == "silu_mul") return value;
    }
    return -1.0;
  };
  for (const bool on : {false, true, false}) {
    const double before = seconds();
    gpu_->SetTiming(on);
    ASSERT_TRUE(gpu_->SiluMul(x.matrix(), out.matrix()).ok());
    ASSERT_TRUE(gpu_->Synchronize().ok());
    EXPECT_EQ(seconds() > before, on);
  }
}

}  // namespace
}  // namespace salamander::kernels
