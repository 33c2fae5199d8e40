// Pages, tiers, stage 1, stage 2 and dense attention against float64.
#include <cmath>
#include <set>

#include "tests/kernels/backend_fixture.h"
#include "tests/kernels/reference.h"

namespace salamander::kernels {
namespace {

SparseShape Shape(int64_t heads, int64_t kv_heads, int64_t dim, int64_t init = 1, int64_t local = 2, int64_t topk = 4) {
  return {heads, {kv_heads, dim, DType::kFloat32}, init, local, topk + local};
}

class SparseAttentionTest : public BackendTest {
 protected:
  // Holds the chosen blocks of every row of a sequence of `tokens` against the model's definition. Sets may differ only
  // where float64 values at the cut differ by less than rounding, and not at all where they are equal.
  void ExpectChoice(const SparseShape& shape, const PagedContext& context, const Array& q, const int32_t* blocks,
                    int64_t row, int64_t position, int64_t tokens) {
    const int64_t group = shape.heads / shape.kv.kv_heads;
    for (int64_t g = 0; g < shape.kv.kv_heads; ++g) {
      std::vector<const float*> queries;
      for (int64_t h = g * group; h < (g + 1) * group; ++h) queries.push_back(q.row(row) + h * shape.kv.head_dim);
      const reference::Choice want = reference::ChooseBlocks(
          shape, queries, [&](int64_t t) { return context.key(t, g); }, position, tokens);
      const int32_t* got = blocks + (row * shape.kv.kv_heads + g) * shape.top_blocks;
      std::vector<int32_t> picks(got, std::find(got, got + shape.top_blocks, -1));
      for (int64_t i = picks.size(); i < shape.top_blocks; ++i) ASSERT_EQ(got[i], -1);
      if (picks == want.picks) continue;
      ASSERT_TRUE(std::is_sorted(picks.begin(), picks.end()));
      ASSERT_EQ(picks.size(), want.picks.size()) << "position " << position << " head " << g;
      std::vector<int32_t> extra, missing;
      std::set_difference(picks.begin(), picks.end(), want.picks.begin(), want.picks.end(), std::back_inserter(extra));
      std::set_difference(want.picks.begin(), want.picks.end(), picks.begin(), picks.end(),
                          std::back_inserter(missing));
      for (size_t i = 0; i < extra.size(); ++i) {
        const double a = want.values[extra[i]], b = want.values[missing[i]];
        ASSERT_NE(a, b) << "tie not won by the lower block at position " << position;
        ASSERT_NEAR(a, b, 2e-5 * b) << "position " << position << " head " << g;
      }
    }
  }

  std::vector<int32_t> Select(const SparseShape& shape, const Array& q, absl::Span<const SparseRows> seqs) {
    std::vector<int32_t> blocks(q.matrix().rows * shape.kv.kv_heads * shape.top_blocks, -9);
    EXPECT_TRUE(ops_->SelectBlocks(shape, q.matrix(), seqs, blocks.data()).ok());
    return blocks;
  }

  // Holds one row of `out` against softmax attention over the chosen blocks, or over everything if blocks is null.
  void ExpectAttention(const SparseShape& shape, const PagedContext& context, const Array& q, const Array& out,
                       const int32_t* blocks, int64_t row, int64_t position) {
    const int64_t dim = shape.kv.head_dim, group = shape.heads / shape.kv.kv_heads;
    for (int64_t h = 0; h < shape.heads; ++h) {
      const int64_t g = h / group;
      std::vector<int64_t> tokens;
      for (int64_t t = 0; t <= position; ++t) {
        const int32_t* row_blocks = blocks + (row * shape.kv.kv_heads + g) * shape.top_blocks;
        if (blocks == nullptr || std::count(row_blocks, row_blocks + shape.top_blocks, t / kBlockTokens) > 0) {
          tokens.push_back(t);
        }
      }
      const reference::Vector want = reference::Attend(
          q.row(row) + h * dim, [&](int64_t t) { return context.key(t, g); },
          [&](int64_t t) { return context.value(t, g); }, tokens, dim);
      for (int64_t c = 0; c < dim; ++c) {
        ASSERT_NEAR(out.at(row, h * dim + c), want[c], 1e-5) << "row " << row << " head " << h << " column " << c;
      }
    }
  }
};

TEST_P(SparseAttentionTest, AppendedKeysAndValuesLieInTheirPages) {
  const SparseShape shape = Shape(4, 2, 64);
  PagedContext context(*ops_, shape, 2100, 1);
  for (auto [from, to] :
       std::vector<std::pair<int64_t, int64_t>>{{0, 1}, {1, 64}, {64, 1023}, {1023, 1025}, {1025, 2100}}) {
    context.Append(from, to);
  }
  for (int64_t t : {0, 1, 63, 64, 1022, 1023, 1024, 1025, 2047, 2048, 2099}) {
    for (int64_t g : {0, 1}) {
      const std::byte* page = context.pages()[t / kPageTokens];
      const int64_t at = t % kBlockTokens * 64 * 4, block = t % kPageTokens / kBlockTokens;
      EXPECT_EQ(std::memcmp(page + shape.kv.keys(block, g) + at, context.key(t, g), 64 * 4), 0) << t;
      EXPECT_EQ(std::memcmp(page + shape.kv.values(block, g) + at, context.value(t, g), 64 * 4), 0) << t;
    }
  }
}

TEST_P(SparseAttentionTest, TiersAreMeansOfWholeWindows) {
  for (int64_t dim : {32, 64, 128}) {
    const SparseShape shape = Shape(2, 2, dim);
    const int64_t tokens = 2301;
    PagedContext context(*ops_, shape, tokens, 2);
    int64_t from = 0;
    for (int64_t to : {1, 31, 32, 127, 128, 129, 1000, 1024, 1040, 2047, 2048, 2300, 2301}) {
      context.Append(from, to);
      from = to;
    }
    const KvLayout& kv = shape.kv;
    for (int64_t g : {0, 1}) {
      auto expect_mean = [&](const std::byte* at, int64_t first, int64_t count) {
        const reference::Vector want = reference::Mean([&](int64_t t) { return context.key(t, g); }, first, count, dim);
        for (int64_t i = 0; i < dim; ++i) ASSERT_NEAR(reinterpret_cast<const float*>(at)[i], want[i], 1e-6) << first;
      };
      for (int64_t j = 0; j < K1Count(tokens); ++j) {
        expect_mean(context.pages()[j / kPageK1] + kv.k1(g, j % kPageK1), j * kK1Stride, kK1Window);
      }
      for (int64_t j = 0; j < K2Count(tokens); ++j) {
        expect_mean(context.pages()[j / kPageK2] + kv.k2(g, j % kPageK2), j * kK2Stride, kK2Window);
      }
      // The next windows are not whole: nobody may have written them.
      const int64_t j1 = K1Count(tokens), j2 = K2Count(tokens);
      EXPECT_TRUE(std::isnan(*reinterpret_cast<const float*>(context.pages()[j1 / kPageK1] + kv.k1(g, j1 % kPageK1))));
      EXPECT_TRUE(std::isnan(*reinterpret_cast<const float*>(context.pages()[j2 / kPageK2] + kv.k2(g, j2 % kPageK2))));
    }
  }
}

TEST_P(SparseAttentionTest, SelectsTheModelsBlocks) {
  for (const SparseShape& shape :
       {Shape(4, 1, 64), Shape(16, 1, 128), Shape(6, 2, 32), Shape(2, 2, 32), Shape(4, 1, 64, 1, 8, 16)}) {
    const int64_t tokens = 2200;
    PagedContext context(*ops_, shape, tokens, 3);
    context.Append(0, tokens);
    // Where rules change: first windows, block and page borders.
    for (int64_t position : {0, 30, 31, 63, 64, 126, 127, 128, 190, 255, 1023, 1024, 1054, 1055, 1150, 2047, 2199}) {
      Array q(*ops_, 1, shape.heads * shape.kv.head_dim, Random(shape.heads * shape.kv.head_dim, position, 3));
      const SparseRows seq = {0, 1, position, context.pages()};
      const std::vector<int32_t> blocks = Select(shape, q, absl::MakeConstSpan(&seq, 1));
      ExpectChoice(shape, context, q, blocks.data(), 0, position, tokens);
      ExpectChoice(shape, context, q, blocks.data(), 0, position, position + 1);  // later tokens change nothing
      if (HasFatalFailure()) return;
    }
  }
}

TEST_P(SparseAttentionTest, SelectsTheSameForManyRowsAsForOne) {
  const SparseShape shape = Shape(4, 1, 64);
  const int64_t tokens = 1500;
  PagedContext context(*ops_, shape, tokens, 4);
  context.Append(0, tokens);
  for (int64_t begin : {0, 100, 1000}) {
    for (int64_t rows : {15, 16, 17, 100}) {
      Array q(*ops_, rows, 256, Random(rows * 256, begin + rows, 3));
      const SparseRows seq = {0, rows, begin, context.pages()};
      const std::vector<int32_t> blocks = Select(shape, q, absl::MakeConstSpan(&seq, 1));
      for (int64_t r = 0; r < rows; ++r) ExpectChoice(shape, context, q, blocks.data(), r, begin + r, tokens);
      if (HasFatalFailure()) return;
    }
  }
}

// Beyond 32 pages log-sum-exps are taken in ranges and combined, and blocks are valued in ranges.
TEST_P(SparseAttentionTest, SelectsInLongContexts) {
  const SparseShape shape = Shape(4, 1, 32, 1, 2, 6);
  const int64_t tokens = 66 * kPageTokens + 300;
  PagedContext context(*ops_, shape, tokens, 30);
  context.Append(0, tokens);
  Array q(*ops_, 40, 128, Random(40 * 128, 31, 40));  // large: ranges differ in their maxima
  for (int64_t position : {33 * kPageTokens, 64 * kPageTokens + 130, tokens - 40}) {
    const SparseRows tile = {0, 40, position, context.pages()}, single = {7, 1, position + 7, context.pages()};
    const std::vector<int32_t> blocks = Select(shape, q, absl::MakeConstSpan(&tile, 1));
    const std::vector<int32_t> alone = Select(shape, q, absl::MakeConstSpan(&single, 1));
    ExpectChoice(shape, context, q, blocks.data(), 7, position + 7, position + 8);
    EXPECT_TRUE(std::equal(&alone[7 * shape.top_blocks], &alone[8 * shape.top_blocks], &blocks[7 * shape.top_blocks]));
    if (HasFatalFailure()) return;
  }
}

// Forced blocks alone, more forced blocks than places, no forced block before own, and zero scores everywhere.
TEST_P(SparseAttentionTest, SelectsAtTheEdgesOfTheConfiguration) {
  for (const SparseShape& shape : {Shape(4, 1, 32, 1, 2, 0), Shape(4, 1, 32, 3, 2, 1), Shape(4, 1, 32, 0, 0, 3),
                                   Shape(4, 1, 32, 5, 1, 2), Shape(4, 1, 32, 1, 40, 4)}) {
    const int64_t tokens = 700;
    PagedContext context(*ops_, shape, tokens, 5);
    context.Append(0, tokens);
    Array q(*ops_, tokens, 128, Random(tokens * 128, 6, 3));
    const SparseRows seq = {0, tokens, 0, context.pages()};
    const std::vector<int32_t> blocks = Select(shape, q, absl::MakeConstSpan(&seq, 1));
    for (int64_t r = 0; r < tokens; r += 7) ExpectChoice(shape, context, q, blocks.data(), r, r, tokens);
    if (HasFatalFailure()) return;
  }
}

TEST_P(SparseAttentionTest, LowerBlockWinsTies) {
  const SparseShape shape = Shape(4, 1, 32, 1, 1, 3);
  const int64_t tokens = 1400;
  PagedContext context(*ops_, shape, tokens, 7);
  std::fill(context.mutable_keys().begin(), context.mutable_keys().end(), 0.25f);  // all windows are the same
  context.Append(0, tokens);
  Array q(*ops_, 1, 128, Random(128, 8));
  const SparseRows seq = {0, 1, tokens - 1, context.pages()};
  EXPECT_EQ(Select(shape, q, absl::MakeConstSpan(&seq, 1)), (std::vector<int32_t>{0, 1, 20, 21}));
}

TEST_P(SparseAttentionTest, AttendsToChosenBlocks) {
  for (const SparseShape& shape : {Shape(4, 1, 64), Shape(16, 1, 128), Shape(6, 2, 32), Shape(3, 3, 64)}) {
    const int64_t tokens = 1300, rows = 150, begin = tokens - rows;
    PagedContext context(*ops_, shape, tokens, 9);
    context.Append(0, tokens);
    const int64_t width = shape.heads * shape.kv.head_dim;
    Array q(*ops_, rows, width, Random(rows * width, 10, 2)), out(*ops_, rows, width);
    const SparseRows seq = {0, rows, begin, context.pages()};
    const std::vector<int32_t> blocks = Select(shape, q, absl::MakeConstSpan(&seq, 1));
    ASSERT_TRUE(ops_->AttendBlocks(shape, q.matrix(), absl::MakeConstSpan(&seq, 1), blocks.data(), out.matrix()).ok());
    for (int64_t r = 0; r < rows; r += 13) ExpectAttention(shape, context, q, out, blocks.data(), r, begin + r);
    EXPECT_TRUE(out.PaddingUntouched());
    if (HasFatalFailure()) return;
  }
}

TEST_P(SparseAttentionTest, AttendsDensely) {
  for (const SparseShape& shape : {Shape(4, 1, 64), Shape(16, 1, 128), Shape(6, 2, 32), Shape(2, 2, 32)}) {
    for (auto [begin, rows] :
         std::vector<std::pair<int64_t, int64_t>>{{0, 1}, {0, 67}, {63, 2}, {1000, 49}, {1087, 1}}) {
      PagedContext context(*ops_, shape, begin + rows, 11);
      context.Append(0, begin + rows);
      const int64_t width = shape.heads * shape.kv.head_dim;
      Array q(*ops_, rows, width, Random(rows * width, 12, 2)), out(*ops_, rows, width);
      const SparseRows seq = {0, rows, begin, context.pages()};
      ASSERT_TRUE(ops_->AttendDense(shape, q.matrix(), absl::MakeConstSpan(&seq, 1), out.matrix()).ok());
      for (int64_t r = 0; r < rows; r += 5) ExpectAttention(shape, context, q, out, nullptr, r, begin + r);
      if (HasFatalFailure()) return;
    }
  }
}

// Large scores: the running maximum must keep every exponential in range.
TEST_P(SparseAttentionTest, SurvivesLargeScores) {
  const SparseShape shape = Shape(4, 1, 64);
  const int64_t tokens = 900;
  PagedContext context(*ops_, shape, tokens, 13);
  context.Append(0, tokens);
  Array q(*ops_, 1, 256, Random(256, 14, 60)), out(*ops_, 1, 256);
  const SparseRows seq = {0, 1, tokens - 1, context.pages()};
  ASSERT_TRUE(ops_->AttendDense(shape, q.matrix(), absl::MakeConstSpan(&seq, 1), out.matrix()).ok());
  for (float x : out.values()) ASSERT_TRUE(std::isfinite(x));
  const std::vector<int32_t> blocks = Select(shape, q, absl::MakeConstSpan(&seq, 1));
  EXPECT_EQ(std::count(blocks.begin(), blocks.end(), -1), 0);
}

// A decode step: sequences of different lengths, one row each, some sharing the call with a longer piece.
TEST_P(SparseAttentionTest, BatchesOfSequencesAreIndependent) {
  const SparseShape shape = Shape(4, 2, 64);
  const std::vector<int64_t> lengths = {1, 64, 65, 700, 1024, 1025, 2300};
  std::vector<std::unique_ptr<PagedContext>> contexts;
  std::vector<SparseRows> seqs;
  int64_t row = 0;
  for (size_t i = 0; i < lengths.size(); ++i) {
    contexts.push_back(std::make_unique<PagedContext>(*ops_, shape, lengths[i], 20 + i));
    contexts.back()->Append(0, lengths[i]);
    const int64_t rows = lengths[i] == 700 ? 20 : 1;
    seqs.push_back({row, rows, lengths[i] - rows, contexts.back()->pages()});
    row += rows;
  }
  Array q(*ops_, row, 256, Random(row * 256, 15, 2)), sparse(*ops_, row, 256), dense(*ops_, row, 256);
  const std::vector<int32_t> blocks = Select(shape, q, seqs);
  ASSERT_TRUE(ops_->AttendBlocks(shape, q.matrix(), seqs, blocks.data(), sparse.matrix()).ok());
  ASSERT_TRUE(ops_->AttendDense(shape, q.matrix(), seqs, dense.matrix()).ok());
  for (size_t i = 0; i < lengths.size(); ++i) {
    for (int64_t r = seqs[i].row; r < seqs[i].row + seqs[i].rows; ++r) {
      const int64_t position = seqs[i].position + r - seqs[i].row;
      ExpectChoice(shape, *contexts[i], q, blocks.data(), r, position, lengths[i]);
      ExpectAttention(shape, *contexts[i], q, sparse, blocks.data(), r, position);
      ExpectAttention(shape, *contexts[i], q, dense, nullptr, r, position);
      if (HasFatalFailure()) return;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, SparseAttentionTest, ::testing::ValuesIn(AllBackends()), BackendName);

}  // namespace
}  // namespace salamander::kernels
