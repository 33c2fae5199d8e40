// Lightning attention, chunked and recurrent, against the float64 recurrence.
#include <cmath>

#include "tests/kernels/backend_fixture.h"
#include "tests/kernels/reference.h"

namespace salamander::kernels {
namespace {

class LightningTest : public BackendTest {
 protected:
  // Slopes from fast (forgets at once) to slow (remembers hundreds of tokens).
  static LightningShape Shape(int64_t heads, int64_t kv_heads, int64_t dim) {
    LightningShape shape{heads, kv_heads, dim, 1 / std::sqrt(static_cast<float>(dim)), {}};
    for (int64_t h = 0; h < heads; ++h) shape.slopes.push_back(std::exp2(-8.0f * (h + 1) / heads));
    return shape;
  }
};

struct Inputs {
  Inputs(Ops& ops, const LightningShape& s, int64_t rows, uint32_t seed)
      : q(ops, rows, s.heads * s.head_dim, Random(rows * s.heads * s.head_dim, seed)),
        k(ops, rows, s.kv_heads * s.head_dim, Random(rows * s.kv_heads * s.head_dim, seed + 1)),
        v(ops, rows, s.kv_heads * s.head_dim, Random(rows * s.kv_heads * s.head_dim, seed + 2)),
        out(ops, rows, s.heads * s.head_dim),
        state(Random(s.heads * s.head_dim * s.head_dim, seed + 3)) {}
  Array q, k, v, out;
  std::vector<float> state;
};

// Holds out and state of rows [row, row + rows) against the recurrence begun at `state`.
void ExpectRecurrence(const LightningShape& s, const Inputs& in, std::vector<float> before, const float* after,
                      int64_t row, int64_t rows) {
  const int64_t d = s.head_dim, group = s.heads / s.kv_heads;
  for (int64_t h = 0; h < s.heads; ++h) {
    reference::Vector state(before.begin() + h * d * d, before.begin() + (h + 1) * d * d);
    const double decay = std::exp(-static_cast<double>(s.slopes[h]));
    for (int64_t r = row; r < row + rows; ++r) {
      reference::Vector out(d);
      for (int64_t i = 0; i < d; ++i) {
        for (int64_t j = 0; j < d; ++j) {
          double& x = state[i * d + j];
          x = decay * x + static_cast<double>(in.k.at(r, h / group * d + i)) * in.v.at(r, h / group * d + j);
          out[j] += in.q.at(r, h * d + i) * x * s.scale;
        }
      }
      for (int64_t j = 0; j < d; ++j) {
        ASSERT_NEAR(in.out.at(r, h * d + j), out[j], 2e-5 * (10 + std::abs(out[j]))) << "head " << h << " row " << r;
      }
    }
    for (int64_t i = 0; i < d * d; ++i) ASSERT_NEAR(after[h * d * d + i], state[i], 2e-5 * (10 + std::abs(state[i])));
  }
}

TEST_P(LightningTest, MatchesRecurrence) {
  struct Case {
    int64_t heads, kv_heads, dim;
  };
  for (const Case& c : {Case{4, 4, 64}, Case{6, 2, 32}, Case{3, 1, 128}, Case{1, 1, 64}}) {
    const LightningShape shape = Shape(c.heads, c.kv_heads, c.dim);
    for (int64_t rows : {1, 2, 15, 63, 64, 65, 127, 128, 129, 200}) {
      Inputs in(*ops_, shape, rows, rows);
      std::vector<float> state = in.state;
      const LightningRows seq = {0, rows, 0, state.data()};
      ASSERT_TRUE(ops_->Lightning(shape, in.q.matrix(), in.k.matrix(), in.v.matrix(), absl::MakeConstSpan(&seq, 1),
                                  in.out.matrix())
                      .ok());
      ExpectRecurrence(shape, in, in.state, state.data(), 0, rows);
      EXPECT_TRUE(in.out.PaddingUntouched());
      if (HasFatalFailure()) return;
    }
  }
}

TEST_P(LightningTest, BatchesOfSequencesAreIndependent) {
  const LightningShape shape = Shape(4, 2, 64);
  const std::vector<int64_t> lengths = {1, 1, 70, 1, 5};
  Inputs in(*ops_, shape, 78, 9);
  std::vector<std::vector<float>> before, after;
  for (uint32_t i = 0; i < lengths.size(); ++i) before.push_back(Random(in.state.size(), 50 + i));
  after = before;
  std::vector<LightningRows> seqs;
  int64_t row = 0;
  for (size_t i = 0; i < lengths.size(); ++i) {
    seqs.push_back({row, lengths[i], 1000, after[i].data()});
    row += lengths[i];
  }
  ASSERT_TRUE(ops_->Lightning(shape, in.q.matrix(), in.k.matrix(), in.v.matrix(), seqs, in.out.matrix()).ok());
  for (size_t i = 0; i < lengths.size(); ++i) {
    ExpectRecurrence(shape, in, before[i], after[i].data(), seqs[i].row, seqs[i].rows);
  }
}

// A prompt cut into calls at multiples of 128 tokens, as spans are, gives the same bits.
TEST_P(LightningTest, CutsAtSpanBoundariesDoNotMatter) {
  const LightningShape shape = Shape(4, 4, 64);
  Inputs whole(*ops_, shape, 700, 5), cut(*ops_, shape, 700, 5);
  LightningRows seq = {0, 700, 0, whole.state.data()};
  ASSERT_TRUE(ops_->Lightning(shape, whole.q.matrix(), whole.k.matrix(), whole.v.matrix(), absl::MakeConstSpan(&seq, 1),
                              whole.out.matrix())
                  .ok());
  for (auto [begin, end] : std::vector<std::pair<int64_t, int64_t>>{{0, 128}, {128, 512}, {512, 700}}) {
    seq = {begin, end - begin, begin, cut.state.data()};
    ASSERT_TRUE(ops_->Lightning(shape, cut.q.matrix(), cut.k.matrix(), cut.v.matrix(), absl::MakeConstSpan(&seq, 1),
                                cut.out.matrix())
                    .ok());
  }
  EXPECT_EQ(whole.out.values(), cut.out.values());
  EXPECT_EQ(whole.state, cut.state);
}

INSTANTIATE_TEST_SUITE_P(All, LightningTest, ::testing::ValuesIn(AllBackends()), BackendName);

}  // namespace
}  // namespace salamander::kernels
