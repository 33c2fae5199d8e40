// Stage 1 on the GPU against float64, in all its forms: tiles of tokens and single tokens.
#include <gtest/gtest.h>

#include <iterator>

#include "tests/kernels/cuda/select_context.h"

namespace salamander::kernels::cuda {
namespace {

struct Span {
  TierContext* context;
  int64_t position, rows;
};

// Makes every block beat all before it, so that lists overflow as often as they can.
void MakeAscending(const SelectShape& shape, TierContext& context, int64_t tokens, std::vector<float>& q,
                   int64_t stride) {
  for (int64_t j = 0; j < K1Count(tokens); ++j) {
    for (int64_t i = 0; i < shape.dim; ++i) {
      context.mutable_k1()[j * shape.dim + i] = i < 8 ? static_cast<float>(j / (1 << 3 * i) % 8) : 0.0f;
    }
  }
  // Or large products with these would leave nothing of the values.
  std::fill(context.mutable_k2().begin(), context.mutable_k2().end(), 0.0f);
  for (int64_t at = 0; at < static_cast<int64_t>(q.size()); ++at) {
    const int64_t i = at % stride % shape.dim;
    q[at] = i < 8 ? std::ldexp(1.0f, static_cast<int>(3 * i) - 9) : 0.0f;
  }
}

class SelectTest : public GpuTest {
 protected:
  static constexpr int64_t kPad = 24;        // columns of q that no head has
  static constexpr int32_t kUntouched = -9;  // in the choices

  // Runs all spans in one call. Rows of q are in the order of spans, with one row that nobody has after each.
  struct Call {
    Call(const SelectShape& call_shape, std::vector<Span> all, float scale, uint32_t seed)
        : shape(call_shape), spans(std::move(all)), stride(shape.heads * shape.dim + kPad) {
      for (const Span& span : spans) {
        first_rows.push_back(rows);
        rows += span.rows + 1;
      }
      q = RandomBf16(rows * stride, seed, scale);
    }
    const float* query(int64_t row) const { return &q[row * stride]; }

    SelectShape shape;
    std::vector<Span> spans;
    std::vector<int64_t> first_rows;
    int64_t stride, rows = 0;
    int64_t max_tokens = 0;  // a bound, raised to what the spans need
    std::vector<float> q;
  };

  SparseParams Params(const Call& call, Arch arch, const SparseSequence* sequences) const {
    SparseParams params;
    params.kv = call.shape.kv();
    params.heads = call.shape.heads;
    params.init_blocks = call.shape.init;
    params.local_blocks = call.shape.local;
    params.top_blocks = call.shape.top_blocks();
    params.sequences = sequences;
    params.count = static_cast<int64_t>(call.spans.size());
    params.max_tokens = call.max_tokens;
    for (const Span& span : call.spans) {
      params.max_rows = std::max(params.max_rows, span.rows);
      params.max_tokens = std::max(params.max_tokens, span.position + span.rows);
    }
    params.arch = arch;
    params.multiprocessors = multiprocessors_;
    return params;
  }
  static std::vector<SparseSequence> Sequences(const Call& call) {
    std::vector<SparseSequence> sequences;
    for (size_t i = 0; i < call.spans.size(); ++i) {
      const Span& span = call.spans[i];
      sequences.push_back(
          {call.first_rows[i], span.rows, span.position, span.context ? span.context->pages() : nullptr});
    }
    return sequences;
  }

  // Choices [row][kv head][top_blocks]. Rows of no sequence and memory behind the workspace stay as they were.
  std::vector<int32_t> Select(const Call& call, Arch arch) {
    constexpr int64_t kGuard = 1024;
    const DeviceArray<SparseSequence> sequences(Sequences(call));
    const DeviceArray<bf16> q(ToBf16(call.q));
    const SparseParams params = Params(call, arch, sequences.data());
    const int64_t width = params.kv.kv_heads * params.top_blocks, bytes = SelectWorkspaceBytes(params);
    const DeviceArray<int32_t> blocks(std::vector<int32_t>(call.rows * width, kUntouched));
    const DeviceArray<uint8_t> workspace(bytes + kGuard);
    EXPECT_EQ(SelectBlocks(params, {q.data(), call.stride}, blocks.data(), workspace.data(), nullptr), cudaSuccess);
    Finish();
    std::vector<int32_t> out = blocks.Read();
    for (size_t i = 0; i < call.spans.size(); ++i) {
      const auto unused = out.begin() + (call.first_rows[i] + call.spans[i].rows) * width;
      EXPECT_EQ(std::count(unused, unused + width, kUntouched), width) << "wrote after the rows of sequence " << i;
    }
    const std::vector<uint8_t> work = workspace.Read();
    EXPECT_EQ(std::count(work.begin() + bytes, work.end(), 0xff), kGuard) << "wrote behind the workspace";
    return out;
  }

  // Holds one row of all heads against float64. Sets may differ only where values at the cut differ by less than
  // rounding (tensor cores sum products of a few hundred with an ulp of 2^-16, and errors of exponents are relative
  // ones of values), and not at all where they are equal.
  static void ExpectRow(const Call& call, const std::vector<int32_t>& blocks, size_t index, int64_t at,
                        double tolerance = 1e-4) {
    const SelectShape& shape = call.shape;
    const int64_t row = call.first_rows[index] + at, position = call.spans[index].position + at;
    for (int64_t g = 0; g < shape.kv_heads; ++g) {
      const ExpectedChoice want = ChooseFromTiers(shape, *call.spans[index].context, call.query(row), g, position);
      const int32_t* got = &blocks[(row * shape.kv_heads + g) * shape.top_blocks()];
      const std::vector<int32_t> picks(got, std::find(got, got + shape.top_blocks(), -1));
      for (int64_t i = picks.size(); i < shape.top_blocks(); ++i) ASSERT_EQ(got[i], -1);
      if (picks == want.picks) continue;
      ASSERT_TRUE(std::is_sorted(picks.begin(), picks.end())) << "position " << position << " head " << g;
      ASSERT_EQ(picks.size(), want.picks.size()) << "position " << position << " head " << g;
      std::vector<int32_t> extra, missing;
      std::set_difference(picks.begin(), picks.end(), want.picks.begin(), want.picks.end(), std::back_inserter(extra));
      std::set_difference(want.picks.begin(), want.picks.end(), picks.begin(), picks.end(),
                          std::back_inserter(missing));
      ASSERT_EQ(extra.size(), missing.size());
      for (size_t i = 0; i < extra.size(); ++i) {
        ASSERT_GE(extra[i], 0);
        ASSERT_LE(extra[i], position / kBlockTokens);
        const double a = want.values[extra[i]], b = want.values[missing[i]];
        ASSERT_NE(a, b) << "tie not won by the lower block at position " << position;
        ASSERT_NEAR(a, b, tolerance * b) << "position " << position << " head " << g << " block " << extra[i] << " for "
                                         << missing[i];
      }
    }
  }

  // Runs on every instruction set; checks every `every`-th row of each span, and its last.
  void Check(const Call& call, int64_t every = 1) {
    for (Arch arch : archs_) {
      SCOPED_TRACE(arch == Arch::kSm80 ? "sm_80" : "sm_90a");
      const std::vector<int32_t> blocks = Select(call, arch);
      for (size_t i = 0; i < call.spans.size(); ++i) {
        const int64_t rows = call.spans[i].rows;
        for (int64_t r = 0; r < rows; r = r + 1 < rows ? std::min(r + every, rows - 1) : rows) {
          ExpectRow(call, blocks, i, r);
          if (HasFatalFailure()) return;
        }
      }
    }
  }

  // The last rows of a sequence whose every block beats all before it.
  void CheckRising(const SelectShape& shape, int64_t tokens, int64_t rows) {
    TierContext context(shape, tokens, 9);
    Call call(shape, {{&context, tokens - rows, rows}}, 1, 10);
    MakeAscending(shape, context, tokens, call.q, call.stride);
    Check(call, 7);
  }
};

const SelectShape kShapes[] = {{4, 1, 64},   {16, 1, 128},         {6, 2, 32},  {2, 2, 32},
                               {14, 2, 128}, {4, 1, 64, 1, 8, 16}, {32, 2, 32}, {11, 1, 64}};

// Where rules change: first windows, block and page borders.
TEST_F(SelectTest, SingleTokens) {
  for (const SelectShape& shape : kShapes) {
    TierContext context(shape, 2200, 3);
    for (int64_t position :
         {0, 30, 31, 63, 64, 126, 127, 128, 190, 255, 575, 639, 640, 1023, 1024, 1054, 1055, 1150, 2047, 2199}) {
      Check(Call(shape, {{&context, position, 1}}, 3, position));
      if (HasFatalFailure()) return;
    }
  }
}

TEST_F(SelectTest, Tiles) {
  for (const SelectShape& shape : kShapes) {
    TierContext context(shape, 2200, 4);
    for (int64_t begin : {0, 100, 1000, 2047}) {
      for (int64_t rows : {2, 15, 16, 17, 100}) {
        Check(Call(shape, {{&context, begin, rows}}, 3, begin + rows), 3);
        if (HasFatalFailure()) return;
      }
    }
  }
}

// Forced blocks alone, more forced blocks than places, no forced block before own, and no competitor at all.
TEST_F(SelectTest, EdgesOfTheConfiguration) {
  for (const SelectShape& shape :
       {SelectShape{4, 1, 32, 1, 2, 0}, SelectShape{4, 1, 32, 3, 2, 1}, SelectShape{4, 1, 32, 0, 0, 3},
        SelectShape{4, 1, 32, 5, 1, 2}, SelectShape{4, 1, 32, 1, 40, 4}, SelectShape{4, 1, 32, 18, 1, 22},
        SelectShape{16, 1, 64, 0, 0, 3}, SelectShape{16, 1, 64, 18, 1, 22}}) {
    TierContext context(shape, 1500, 5);
    Check(Call(shape, {{&context, 0, 1500}}, 3, 6), 7);
    for (int64_t position : {5, 64, 143, 144, 200, 207, 208, 700, 1480}) {
      Check(Call(shape, {{&context, position, 1}}, 3, 7));
    }
    if (HasFatalFailure()) return;
  }
}

TEST_F(SelectTest, LowerBlockWinsTies) {
  const SelectShape shape = {16, 1, 64, 1, 1, 9};
  TierContext context(shape, 3400, 7);
  std::fill(context.mutable_k1().begin(), context.mutable_k1().end(), 0.25f);
  for (int64_t rows : {1, 20}) {
    const Call call(shape, {{&context, 3385 - rows, rows}}, 1, 8);
    for (Arch arch : archs_) {
      const std::vector<int32_t> blocks = Select(call, arch);
      for (int64_t r = 0; r < rows; ++r) {
        EXPECT_EQ(std::vector<int32_t>(&blocks[r * 10], &blocks[r * 10 + 10]),
                  (std::vector<int32_t>{0, 1, 2, 3, 4, 5, 6, 7, 51, 52}));
      }
    }
  }
}

// Every block beats all before it, so that lists overflow as often as they can.
TEST_F(SelectTest, EveryBlockIsBetterThanTheLast) {
  for (const SelectShape& shape : {SelectShape{16, 1, 32, 1, 2, 12}, SelectShape{16, 1, 128, 1, 32, 64}}) {
    for (int64_t rows : {1, 30}) CheckRising(shape, 20 * kPageTokens + 77, rows);
    if (HasFatalFailure()) return;
  }
}

// For compute-sanitizer (tests/gpu/run): lists overflow, rings of tiles go round, for single tokens and tiles of both
// kinds.
TEST_F(SelectTest, SmallestOfEveryKernel) {
  for (const SelectShape& shape :
       {SelectShape{16, 1, 64, 1, 2, 12}, SelectShape{16, 1, 128, 1, 2, 12}, SelectShape{4, 1, 32, 1, 2, 12}}) {
    for (int64_t rows : {1, 9}) CheckRising(shape, 10 * kPageTokens + 77, rows);
    if (HasFatalFailure()) return;
  }
}

// Single tokens whose blocks are more than a thread block looks at in one round: random values, ascending ones, and all
// equal, where lists fill up at once.
TEST_F(SelectTest, SingleTokensOfLongSequences) {
  const SelectShape shape = {16, 1, 32, 3, 4, 40};
  const int64_t tokens = 400 * kPageTokens + 333;
  TierContext random(shape, tokens, 24);
  Call call(shape, {{&random, tokens - 1, 1}, {&random, 140000, 1}, {&random, 131200, 1}}, 2, 25);
  Check(call);
  TierContext ascending(shape, tokens, 26);
  call.spans = {{&ascending, tokens - 1, 1}, {&ascending, 300000, 1}, {&ascending, 64000, 1}};
  MakeAscending(shape, ascending, tokens, call.q, call.stride);
  Check(call);
  TierContext equal(shape, tokens, 27);
  std::fill(equal.mutable_k1().begin(), equal.mutable_k1().end(), 0.25f);
  call.spans = {{&equal, tokens - 1, 1}, {&equal, 300000, 1}, {&equal, 64000, 1}};
  Check(call);
}

// Large scores: references must move, sums of exponentials stay in range.
TEST_F(SelectTest, LargeScores) {
  const SelectShape shape = {16, 1, 64, 1, 2, 6};
  TierContext context(shape, 66 * kPageTokens + 300, 11);
  for (int64_t i = 0; i < 64; ++i) context.mutable_k2()[700 * 64 + i] *= 8;
  for (int64_t rows : {1, 20}) {
    const Call call(shape, {{&context, 66 * kPageTokens, rows}}, 12, 12);
    for (Arch arch : archs_) {
      const std::vector<int32_t> blocks = Select(call, arch);
      for (int64_t r = 0; r < rows; ++r) ExpectRow(call, blocks, 0, r, 2e-3);
      if (HasFatalFailure()) return;
    }
  }
}

// Sequences of all lengths in one call, some of them padding.
TEST_F(SelectTest, SequencesAreIndependent) {
  for (const auto& [shape, single] : {std::pair(SelectShape{8, 2, 64}, true), std::pair(SelectShape{8, 2, 64}, false),
                                      std::pair(SelectShape{32, 2, 64}, false)}) {
    std::vector<std::unique_ptr<TierContext>> contexts;
    std::vector<Span> spans;
    for (int64_t length : {1, 64, 0, 65, 700, 1024, 1025, 0, 2300, 9000}) {
      if (length == 0) {
        spans.push_back({nullptr, 0, 0});
        continue;
      }
      contexts.push_back(std::make_unique<TierContext>(shape, length, 20 + spans.size()));
      const int64_t rows = single || length < 40 ? 1 : 37;
      spans.push_back({contexts.back().get(), length - rows, rows});
    }
    Check(Call(shape, spans, 2, 13), 4);
    if (HasFatalFailure()) return;
  }
}

// A bound on tokens so large that values of few tiles fit the workspace at a time.
TEST_F(SelectTest, WorkspaceForFewTiles) {
  const SelectShape shape = {16, 1, 64, 1, 2, 6};
  TierContext context(shape, 9000, 21), other(shape, 1500, 22);
  Call call(shape, {{&context, 8903, 97}, {nullptr, 0, 0}, {&other, 1440, 60}}, 2, 23);
  call.max_tokens = int64_t{1} << 27;
  Check(call, 5);
}

// Lists so long that few of them fit shared memory.
TEST_F(SelectTest, ManyPlaces) {
  for (const SelectShape& shape :
       {SelectShape{16, 1, 128, 1, 8, 400}, SelectShape{16, 1, 64, 1, 8, 300}, SelectShape{16, 1, 32, 1, 8, 700}}) {
    const int64_t tokens = 60000;
    TierContext context(shape, tokens, 19);
    for (int64_t rows : {1, 20}) Check(Call(shape, {{&context, tokens - rows, rows}}, 2, 20), 19);
    if (HasFatalFailure()) return;
  }
}

TEST_F(SelectTest, ReleasedShape) {
  const SelectShape shape = {32, 2, 128, 1, 32, 64};
  for (int64_t tokens : {7000, 40000, 131072}) {
    TierContext context(shape, tokens, 14);
    Check(Call(shape, {{&context, tokens - 1, 1}}, 2, 15));
    Check(Call(shape, {{&context, tokens - 203, 203}}, 2, 16), 67);
    if (HasFatalFailure()) return;
  }
}

// A captured step serves other sequences, longer and shorter, up to the bound it was captured with.
TEST_F(SelectTest, CapturedStepsRepeatWithOtherSequences) {
  const SelectShape shape = {16, 1, 64, 1, 2, 6};
  TierContext context(shape, 30000, 17);
  std::vector<Span> spans = {{&context, 29999, 1}, {nullptr, 0, 0}, {&context, 50, 1}};
  const Call first(shape, spans, 2, 18);
  DeviceArray<SparseSequence> sequences(Sequences(first));
  const DeviceArray<bf16> q(ToBf16(first.q));
  const SparseParams params = Params(first, archs_.back(), sequences.data());
  const DeviceArray<int32_t> blocks(first.rows * params.top_blocks);
  const DeviceArray<uint8_t> workspace(SelectWorkspaceBytes(params));

  cudaStream_t stream;
  cudaGraph_t graph;
  cudaGraphExec_t step;
  ASSERT_EQ(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), cudaSuccess);
  ASSERT_EQ(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), cudaSuccess);
  ASSERT_EQ(SelectBlocks(params, {q.data(), first.stride}, blocks.data(), workspace.data(), stream), cudaSuccess);
  ASSERT_EQ(cudaStreamEndCapture(stream, &graph), cudaSuccess);
  ASSERT_EQ(cudaGraphInstantiate(&step, graph, 0), cudaSuccess);
  for (int64_t position : {29999, 1200, 17000, 3, 25555}) {
    Call call = first;
    call.spans[0].position = position;
    call.spans[2].position = 29999 - position;
    const std::vector<SparseSequence> now = Sequences(call);
    ASSERT_EQ(cudaMemcpy(sequences.data(), now.data(), now.size() * sizeof(now[0]), cudaMemcpyHostToDevice),
              cudaSuccess);
    ASSERT_EQ(cudaGraphLaunch(step, stream), cudaSuccess);
    ASSERT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
    const std::vector<int32_t> got = blocks.Read();
    ExpectRow(call, got, 0, 0);
    ExpectRow(call, got, 2, 0);
    if (HasFatalFailure()) break;
  }
  EXPECT_EQ(cudaGraphExecDestroy(step), cudaSuccess);
  EXPECT_EQ(cudaGraphDestroy(graph), cudaSuccess);
  EXPECT_EQ(cudaStreamDestroy(stream), cudaSuccess);
}

}  // namespace
}  // namespace salamander::kernels::cuda
