// What results must not depend on: the number of threads, how rows are cut into calls, and, but for rounding, the
// instruction set.
#include <algorithm>
#include <cmath>

#include "tests/kernels/backend_fixture.h"

namespace salamander::kernels {
namespace {

// Everything that one sparse and one lightning layer compute for a prompt, the rows cut at `cuts` (the last one is the
// length).
struct Results {
  std::vector<float> product, sparse, dense, lightning, state;
  std::vector<int32_t> blocks;
  bool operator==(const Results&) const = default;
};

constexpr int64_t kTokens = 2600, kHeads = 6, kKvHeads = 2, kDim = 64, kWidth = kHeads * kDim;

Results Compute(Ops& ops, const std::vector<int64_t>& cuts) {
  const SparseShape shape = {kHeads, {kKvHeads, kDim, DType::kFloat32}, 1, 4, 12};
  const LightningShape lightning = {kHeads, kKvHeads, kDim, 0.125f, {0.5f, 0.25f, 0.1f, 0.05f, 0.01f, 0.004f}};
  const std::vector<float> weights = Random(kWidth * 480, 1, 0.05f);
  const WeightPart part = {weights.data(), DType::kFloat32, kWidth, 480};
  const auto weight = ops.PrepareWeight(absl::MakeConstSpan(&part, 1)).value();
  const Array x(ops, kTokens, 480, Random(kTokens * 480, 2));
  const Array k(ops, kTokens, kKvHeads * kDim, Random(kTokens * kKvHeads * kDim, 3));
  const Array v(ops, kTokens, kKvHeads * kDim, Random(kTokens * kKvHeads * kDim, 4));
  Array q(ops, kTokens, kWidth), sparse(ops, kTokens, kWidth), dense(ops, kTokens, kWidth);
  Array recurrent(ops, kTokens, kWidth);
  PagedContext context(ops, shape, kTokens, 5);
  Results results;
  results.blocks.resize(kTokens * kKvHeads * shape.top_blocks);
  results.state.resize(kHeads * kDim * kDim);
  int64_t begin = 0;
  for (int64_t end : cuts) {
    const int64_t rows = end - begin;
    EXPECT_TRUE(ops.MatMul(x.rows(begin, rows), *weight, nullptr, q.rows(begin, rows)).ok());
    context.Append(begin, end);
    const SparseRows seq = {0, rows, begin, context.pages()};
    const auto seqs = absl::MakeConstSpan(&seq, 1);
    int32_t* blocks = results.blocks.data() + begin * kKvHeads * shape.top_blocks;
    EXPECT_TRUE(ops.SelectBlocks(shape, q.rows(begin, rows), seqs, blocks).ok());
    EXPECT_TRUE(ops.AttendBlocks(shape, q.rows(begin, rows), seqs, blocks, sparse.rows(begin, rows)).ok());
    EXPECT_TRUE(ops.AttendDense(shape, q.rows(begin, rows), seqs, dense.rows(begin, rows)).ok());
    const LightningRows state = {0, rows, begin, results.state.data()};
    EXPECT_TRUE(ops.Lightning(lightning, q.rows(begin, rows), k.rows(begin, rows), v.rows(begin, rows),
                              absl::MakeConstSpan(&state, 1), recurrent.rows(begin, rows))
                    .ok());
    begin = end;
  }
  results.product = q.values();
  results.sparse = sparse.values();
  results.dense = dense.values();
  results.lightning = recurrent.values();
  return results;
}

// Largest difference, relative to the largest value.
double Distance(const std::vector<float>& a, const std::vector<float>& b) {
  double difference = 0, largest = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    difference = std::max(difference, std::abs(static_cast<double>(a[i]) - b[i]));
    largest = std::max(largest, std::abs(static_cast<double>(a[i])));
  }
  return difference / largest;
}

class InvarianceTest : public ::testing::TestWithParam<CpuIsa> {};

TEST_P(InvarianceTest, ThreadsDoNotChangeABit) {
  const Results alone = Compute(*CreateCpuOps(1, GetParam()).value(), {kTokens});
  for (int threads : {2, 5, 16}) {
    EXPECT_TRUE(Compute(*CreateCpuOps(threads, GetParam()).value(), {kTokens}) == alone) << threads << " threads";
  }
}

// Spans begin at multiples of 128 tokens.
TEST_P(InvarianceTest, CutsAtSpansDoNotChangeABit) {
  auto ops = CreateCpuOps(2, GetParam()).value();
  EXPECT_TRUE(Compute(*ops, {128, 256, 1024, 2432, kTokens}) == Compute(*ops, {kTokens}));
}

// Rows cut anywhere, single ones too (as when decoding): only the recurrence may round otherwise, and the large tiles
// that the portable backend leaves to oneDNN.
TEST_P(InvarianceTest, CutsAnywhereDoNotChangeAttention) {
  auto ops = CreateCpuOps(2, GetParam()).value();
  const Results whole = Compute(*ops, {kTokens});
  const Results cut = Compute(*ops, {1, 2, 100, 1023, 1024, 1025, 2000, 2001, 2598, 2599, kTokens});
  EXPECT_LT(Distance(cut.product, whole.product), 1e-6);
  if (GetParam() == CpuIsa::kPortable) return;
  EXPECT_TRUE(cut.product == whole.product);
  EXPECT_TRUE(cut.blocks == whole.blocks);
  EXPECT_TRUE(cut.sparse == whole.sparse);
  EXPECT_TRUE(cut.dense == whole.dense);
  EXPECT_LT(Distance(cut.lightning, whole.lightning), 1e-6);
  EXPECT_LT(Distance(cut.state, whole.state), 1e-6);
}

std::vector<CpuIsa> Isas() {
  std::vector<CpuIsa> all;
  for (CpuIsa isa : {CpuIsa::kPortable, CpuIsa::kAvx2, CpuIsa::kAvx512}) {
    if (isa <= DetectCpuIsa()) all.push_back(isa);
  }
  return all;
}

INSTANTIATE_TEST_SUITE_P(All, InvarianceTest, ::testing::ValuesIn(Isas()),
                         [](const auto& isa) { return CpuIsaName(isa.param); });

TEST(InstructionSetsTest, AgreeButForRounding) {
  const Results plain = Compute(*CreateCpuOps(1, CpuIsa::kPortable).value(), {kTokens});
  for (CpuIsa isa : Isas()) {
    const Results other = Compute(*CreateCpuOps(1, isa).value(), {kTokens});
    EXPECT_LT(Distance(plain.product, other.product), 2e-6) << CpuIsaName(isa);
    EXPECT_LT(Distance(plain.dense, other.dense), 2e-6) << CpuIsaName(isa);
    EXPECT_LT(Distance(plain.lightning, other.lightning), 2e-6) << CpuIsaName(isa);
    EXPECT_LT(Distance(plain.state, other.state), 2e-6) << CpuIsaName(isa);
    // A block at the cut may be another one, which then changes its row altogether.
    int64_t different = 0;
    for (size_t i = 0; i < plain.blocks.size(); ++i) different += plain.blocks[i] != other.blocks[i];
    EXPECT_LT(different, static_cast<int64_t>(plain.blocks.size()) / 1000) << CpuIsaName(isa);
  }
}

}  // namespace
}  // namespace salamander::kernels
