// Lightning attention on a GPU against the float64 recurrence and, for long prompts, the CPU backend.
#include <algorithm>
#include <cmath>
#include <memory>

#include "kernels/ops.h"
#include "tests/kernels/backend_fixture.h"
#include "tests/kernels/cuda/device.h"
#include "tests/kernels/reference.h"

namespace salamander::kernels::cuda {
namespace {

// Slopes from fast (forgets at once) to slow (remembers hundreds of tokens).
LightningShape Shape(int64_t heads, int64_t kv_heads, int64_t dim) {
  LightningShape shape{heads, kv_heads, dim, 1 / std::sqrt(static_cast<float>(dim)), {}};
  for (int64_t h = 0; h < heads; ++h) shape.slopes.push_back(std::exp2(-8.0f * (h + 1) / heads));
  return shape;
}

// Sequences one after the other in a fused projection (q, k, v and as many columns again of a gate), with rows of no
// sequence around them.
struct Problem {
  Problem(const LightningShape& heads, const std::vector<int64_t>& lengths, uint32_t seed) : shape(heads) {
    for (size_t i = 0; i < lengths.size(); ++i) {
      LightningSequence sequence;
      sequence.row = rows;
      sequence.rows = lengths[i];
      sequence.position = 37 * static_cast<int64_t>(i);
      sequences.push_back(sequence);
      states.push_back(Random(state_size(), seed + 10 + i));
      rows += lengths[i] + 1;
    }
    q_cols = shape.heads * shape.head_dim;
    kv_cols = shape.kv_heads * shape.head_dim;
    fused_cols = 2 * (q_cols + 2 * kv_cols);
    fused = Rounded(Random(rows * fused_cols, seed));
  }
  int64_t state_size() const { return shape.heads * shape.head_dim * shape.head_dim; }
  const float* q(int64_t row, int64_t head) const { return &fused[row * fused_cols + head * shape.head_dim]; }
  const float* k(int64_t row, int64_t head) const {
    return &fused[row * fused_cols + q_cols + head / (shape.heads / shape.kv_heads) * shape.head_dim];
  }
  const float* v(int64_t row, int64_t head) const { return k(row, head) + kv_cols; }

  LightningShape shape;
  int64_t rows = 0, q_cols = 0, kv_cols = 0, fused_cols = 0;
  std::vector<LightningSequence> sequences;
  std::vector<std::vector<float>> states;
  std::vector<float> fused;
};

struct Result {
  const float* row(int64_t r, int64_t head, int64_t dim) const { return &out[r * cols + head * dim]; }
  int64_t cols = 0;
  std::vector<float> out;  // NaN where nothing was written
  std::vector<std::vector<float>> states;
};

constexpr int64_t kGuard = 1024;  // floats after the workspace

Result Launch(const Problem& problem, int64_t max_rows, int multiprocessors, Arch arch) {
  const LightningShape& shape = problem.shape;
  const DeviceArray<bf16> fused(ToBf16(problem.fused));
  Result result;
  result.cols = problem.q_cols + 8;
  const DeviceArray<bf16> out(problem.rows * result.cols);
  const DeviceArray<float> slopes(shape.slopes);
  std::vector<std::unique_ptr<DeviceArray<float>>> states;
  std::vector<LightningSequence> sequences = problem.sequences;
  for (size_t i = 0; i < sequences.size(); ++i) {
    states.push_back(std::make_unique<DeviceArray<float>>(problem.states[i]));
    sequences[i].state = states.back()->data();
  }
  const DeviceArray<LightningSequence> on_device(sequences);

  LightningParams params;
  params.heads = shape.heads;
  params.kv_heads = shape.kv_heads;
  params.dim = shape.head_dim;
  params.scale = shape.scale;
  params.slopes = slopes.data();
  params.sequences = on_device.data();
  params.count = static_cast<int64_t>(sequences.size());
  params.max_rows = max_rows;
  params.arch = arch;
  params.multiprocessors = multiprocessors;
  const int64_t workspace_floats = LightningWorkspaceBytes(params) / static_cast<int64_t>(sizeof(float));
  const DeviceArray<float> workspace(workspace_floats + kGuard);
  const bf16* data = fused.data();
  const int64_t stride = problem.fused_cols;
  EXPECT_EQ(Lightning(params, {data, stride}, {data + problem.q_cols, stride},
                      {data + problem.q_cols + problem.kv_cols, stride}, {out.data(), result.cols}, workspace.data(),
                      nullptr),
            cudaSuccess);
  EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess) << cudaGetErrorString(cudaGetLastError());
  const std::vector<float> guarded = workspace.Read();
  EXPECT_TRUE(std::all_of(guarded.end() - kGuard, guarded.end(), [](float x) { return std::isnan(x); }));
  result.out = ToFloat(out.Read());
  for (const auto& state : states) result.states.push_back(state->Read());
  return result;
}

// ‖got - want‖ / ‖want‖ within `tolerance`.
template <typename Got, typename Want>
::testing::AssertionResult Near(const Got* got, const Want* want, int64_t count, double tolerance) {
  double error = 0, norm = 0;
  for (int64_t i = 0; i < count; ++i) {
    error += (got[i] - want[i]) * (got[i] - want[i]);
    norm += want[i] * want[i];
  }
  if (error <= tolerance * tolerance * norm) return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure() << "relative error " << std::sqrt(error / norm);
}

// Only rows of sequences, and of them only the heads' columns, are written.
void ExpectRestUntouched(const Problem& problem, const Result& result) {
  std::vector<bool> owned(problem.rows);
  for (const LightningSequence& s : problem.sequences) std::fill_n(owned.begin() + s.row, s.rows, true);
  for (int64_t r = 0; r < problem.rows; ++r) {
    for (int64_t c = 0; c < result.cols; ++c) {
      const bool written = owned[r] && c < problem.q_cols;
      ASSERT_EQ(std::isnan(result.out[r * result.cols + c]), !written) << "row " << r << " column " << c;
    }
  }
}

struct Tolerance {
  double row = 2e-2;    // of one row of one head
  double head = 5e-3;   // of all rows of one head
  double state = 5e-3;  // of one head
};

void ExpectRecurrence(const Problem& problem, const Result& result, const Tolerance& tolerance = {}) {
  const LightningShape& shape = problem.shape;
  const int64_t d = shape.head_dim;
  for (size_t i = 0; i < problem.sequences.size(); ++i) {
    const LightningSequence& sequence = problem.sequences[i];
    if (sequence.rows == 0) {
      EXPECT_EQ(result.states[i], problem.states[i]);
      continue;
    }
    for (int64_t h = 0; h < shape.heads; ++h) {
      const auto before = problem.states[i].begin() + h * d * d;
      reference::Vector state(before, before + d * d), got, want;
      const double decay = std::exp(-static_cast<double>(shape.slopes[h]));
      for (int64_t r = sequence.row; r < sequence.row + sequence.rows; ++r) {
        const float *q = problem.q(r, h), *k = problem.k(r, h), *v = problem.v(r, h);
        reference::Vector out(d);
        for (int64_t a = 0; a < d; ++a) {
          for (int64_t b = 0; b < d; ++b) {
            double& x = state[a * d + b];
            x = decay * x + static_cast<double>(k[a]) * v[b];
            out[b] += q[a] * x * shape.scale;
          }
        }
        ASSERT_TRUE(Near(result.row(r, h, d), out.data(), d, tolerance.row))
            << "sequence " << i << " head " << h << " row " << r - sequence.row << " of " << sequence.rows;
        got.insert(got.end(), result.row(r, h, d), result.row(r, h, d) + d);
        want.insert(want.end(), out.begin(), out.end());
      }
      ASSERT_TRUE(Near(got.data(), want.data(), static_cast<int64_t>(got.size()), tolerance.head))
          << "sequence " << i << " head " << h << " of " << sequence.rows << " rows";
      ASSERT_TRUE(Near(&result.states[i][h * d * d], state.data(), d * d, tolerance.state))
          << "state of sequence " << i << " head " << h << " after " << sequence.rows << " rows";
    }
  }
  ExpectRestUntouched(problem, result);
}

class LightningTest : public GpuTest {};

struct HeadsCase {
  int64_t heads, kv_heads, dim;
};
constexpr HeadsCase kHeads[] = {{4, 4, 64}, {6, 2, 32}, {3, 1, 128}, {2, 2, 128}};

// For compute-sanitizer (tests/gpu/run): chunk rings go round, with and without spans.
TEST_F(LightningTest, SmallestOfEveryKernel) {
  for (int64_t dim : {32, 64, 128}) {
    const Problem step(Shape(2, 1, dim), {1, 0, 1}, 1), prompts(Shape(2, 1, dim), {300, 0, 70}, 2);
    ExpectRecurrence(step, Launch(step, 1, multiprocessors_, Arch::kSm80));
    for (Arch arch : archs_) {
      for (int multiprocessors : {1, 80}) {
        ExpectRecurrence(prompts, Launch(prompts, 300, multiprocessors, arch));
        if (HasFatalFailure()) FAIL() << "heads of " << dim << ", " << multiprocessors << " multiprocessors";
      }
    }
  }
}

TEST_F(LightningTest, PromptsAroundTileEdges) {
  for (Arch arch : archs_) {
    for (const HeadsCase& c : kHeads) {
      for (int64_t rows : {2, 15, 16, 17, 63, 64, 65, 127, 128, 129, 200, 255, 256, 257}) {
        const Problem problem(Shape(c.heads, c.kv_heads, c.dim), {rows}, rows);
        ExpectRecurrence(problem, Launch(problem, rows, multiprocessors_, arch));
        if (HasFatalFailure()) FAIL() << "heads of " << c.dim << ", " << rows << " rows";
      }
    }
  }
}

// Cut into no spans, some and as many as can be; the bound on rows is only a bound.
TEST_F(LightningTest, SequencesOfAllLengthsInOneLaunch) {
  for (Arch arch : archs_) {
    for (const HeadsCase& c : kHeads) {
      for (int multiprocessors : {1, 80, 1000}) {
        const Problem problem(Shape(c.heads, c.kv_heads, c.dim), {1, 0, 70, 1, 700, 0, 1025}, multiprocessors);
        ExpectRecurrence(problem, Launch(problem, 1500, multiprocessors, arch));
        if (HasFatalFailure()) FAIL() << "heads of " << c.dim << ", " << multiprocessors << " multiprocessors";
      }
    }
  }
}

// Powers that underflow are zeros, whichever side of a tile they fall on; a head may also forget nothing.
TEST_F(LightningTest, ExtremeSlopes) {
  LightningShape shape = Shape(6, 6, 64);
  shape.slopes = {200, 20, 2, 0.5, 1e-6, 0};
  for (Arch arch : archs_) {
    const Problem problem(shape, {1100}, 3);
    ExpectRecurrence(problem, Launch(problem, 1100, 60, arch));
  }
}

TEST_F(LightningTest, StepsOfABatch) {
  Tolerance tolerance;
  tolerance.row = tolerance.head = 3e-3;  // of the output's own bf16
  tolerance.state = 1e-6;
  for (const HeadsCase& c : {HeadsCase{32, 32, 128}, HeadsCase{8, 2, 64}, HeadsCase{4, 4, 32}, HeadsCase{2, 1, 128}}) {
    std::vector<int64_t> lengths(67, 1);
    for (size_t i = 3; i < lengths.size(); i += 7) lengths[i] = 0;
    if (c.heads == 32) lengths.resize(5);
    const Problem problem(Shape(c.heads, c.kv_heads, c.dim), lengths, 11);
    ExpectRecurrence(problem, Launch(problem, 1, multiprocessors_, Arch::kSm80), tolerance);
    if (HasFatalFailure()) FAIL() << c.heads << " heads of " << c.dim;
  }
}

// Prompts of thousands of rows, in spans of 512 to 2048, against the CPU backend.
TEST_F(LightningTest, LongPrompts) {
  const auto cpu = CreateCpuOps(4).value();
  const HeadsCase c = {6, 3, 128};
  LightningShape shape = Shape(c.heads, c.kv_heads, c.dim);
  shape.slopes = {0.84f, 0.25f, 0.06f, 0.015f, 0.006f, 0.0039f};
  for (int64_t rows : {3001, 8192}) {
    Problem problem(shape, {rows}, rows);
    std::vector<float> want_state = problem.states[0], want(rows * problem.q_cols);
    const LightningRows sequence = {0, rows, problem.sequences[0].position, want_state.data()};
    float* fused = problem.fused.data();
    const int64_t stride = problem.fused_cols;
    ASSERT_TRUE(cpu->Lightning(shape, {fused, rows, problem.q_cols, stride},
                               {fused + problem.q_cols, rows, problem.kv_cols, stride},
                               {fused + problem.q_cols + problem.kv_cols, rows, problem.kv_cols, stride},
                               absl::MakeConstSpan(&sequence, 1), {want.data(), rows, problem.q_cols, problem.q_cols})
                    .ok());
    const Tolerance tolerance;
    for (Arch arch : archs_) {
      for (int multiprocessors : {24, 132}) {
        const Result result = Launch(problem, rows, multiprocessors, arch);
        for (int64_t h = 0; h < c.heads; ++h) {
          for (int64_t r = 0; r < rows; ++r) {
            ASSERT_TRUE(Near(result.row(r, h, c.dim), &want[r * problem.q_cols + h * c.dim], c.dim, tolerance.row))
                << "head " << h << " row " << r << " of " << rows;
          }
          const int64_t size = c.dim * c.dim;
          ASSERT_TRUE(Near(&result.states[0][h * size], &want_state[h * size], size, tolerance.state))
              << "state of head " << h << " after " << rows << " rows";
        }
        ExpectRestUntouched(problem, result);
      }
    }
  }
}

}  // namespace
}  // namespace salamander::kernels::cuda
