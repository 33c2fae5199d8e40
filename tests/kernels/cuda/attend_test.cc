// Stage 2 and dense attention on a GPU, against the CPU backend (float32, on inputs as bf16 keeps them) and float64.
#include <algorithm>
#include <cmath>
#include <memory>
#include <random>
#include <set>

#include "tests/kernels/backend_fixture.h"
#include "tests/kernels/cuda/device.h"
#include "tests/kernels/reference.h"

namespace salamander::kernels::cuda {
namespace {

SparseShape Shape(int64_t heads, int64_t kv_heads, int64_t dim, int64_t init = 1, int64_t local = 2, int64_t topk = 4) {
  return {heads, {kv_heads, dim, DType::kFloat32}, init, local, topk + local};
}

// One sequence on both sides. On the device nothing but its tokens is written: the rest of its pages is NaN.
class Context {
 public:
  Context(Ops& cpu, const SparseShape& shape, int64_t tokens, uint32_t seed) : host_(cpu, shape, tokens, seed) {
    host_.mutable_keys() = Rounded(host_.mutable_keys());
    host_.mutable_values() = Rounded(host_.mutable_values());
    host_.Append(0, tokens);
    KvLayout kv = shape.kv;
    kv.type = DType::kBFloat16;
    std::vector<std::byte*> table;
    for (int64_t first = 0; first < tokens; first += kPageTokens) {
      std::vector<std::byte> page(kv.page_bytes(), std::byte{0xff});
      for (int64_t t = first; t < std::min(tokens, first + kPageTokens); ++t) {
        const int64_t block = t % kPageTokens / kBlockTokens, at = t % kBlockTokens * kv.row_bytes();
        for (int64_t g = 0; g < kv.kv_heads; ++g) {
          Store(host_.key(t, g), kv.head_dim, page.data() + kv.keys(block, g) + at);
          Store(host_.value(t, g), kv.head_dim, page.data() + kv.values(block, g) + at);
        }
      }
      pages_.push_back(std::make_unique<DeviceArray<std::byte>>(page));
      table.push_back(pages_.back()->data());
    }
    table_ = std::make_unique<DeviceArray<std::byte*>>(table);
  }

  const PagedContext& host() const { return host_; }
  std::byte* const* device_pages() const { return table_->data(); }

 private:
  static void Store(const float* values, int64_t count, std::byte* to) {
    for (int64_t i = 0; i < count; ++i) reinterpret_cast<bf16*>(to)[i] = __float2bfloat16(values[i]);
  }

  PagedContext host_;
  std::vector<std::unique_ptr<DeviceArray<std::byte>>> pages_;
  std::unique_ptr<DeviceArray<std::byte*>> table_;
};

// Rows of a sequence that ends with them; rows 0 is padding.
struct Piece {
  int64_t tokens = 0;
  int64_t rows = 0;
};

class AttendTest : public GpuTest {
 protected:
  // As stage 1 chooses: first, local and own blocks, and any others of those before. Rows past the pieces' are -7.
  static std::vector<int32_t> Choose(const SparseShape& shape, const std::vector<SparseRows>& seqs, int64_t rows,
                                     uint32_t seed) {
    std::mt19937 random(seed);
    std::vector<int32_t> blocks(rows * shape.kv.kv_heads * shape.top_blocks, -7);
    for (const SparseRows& seq : seqs) {
      for (int64_t i = 0; i < seq.rows * shape.kv.kv_heads; ++i) {
        const int64_t r = i / shape.kv.kv_heads, own = (seq.position + r) / kBlockTokens;
        std::set<int32_t> chosen;
        for (int64_t b = std::max<int64_t>(0, own - shape.local_blocks); b <= own; ++b) chosen.insert(b);
        for (int64_t b = 0; b < std::min(shape.init_blocks, own); ++b) chosen.insert(b);
        while (static_cast<int64_t>(chosen.size()) < std::min(shape.top_blocks, own + 1)) {
          chosen.insert(std::uniform_int_distribution<int32_t>(0, own)(random));
        }
        // Of more than there are places for, the lowest stay.
        while (static_cast<int64_t>(chosen.size()) > shape.top_blocks) chosen.erase(std::prev(chosen.end()));
        int32_t* to = blocks.data() + (seq.row * shape.kv.kv_heads + i) * shape.top_blocks;
        std::fill(std::copy(chosen.begin(), chosen.end(), to), to + shape.top_blocks, -1);
      }
    }
    return blocks;
  }

  // Runs both operations over the pieces on each Arch and holds all of out against the CPU's.
  void ExpectSameAsCpu(const SparseShape& shape, const std::vector<Piece>& pieces, uint32_t seed,
                       float query_scale = 2) {
    const int64_t width = shape.heads * shape.kv.head_dim;
    std::vector<std::unique_ptr<Context>> contexts;
    std::vector<SparseRows> seqs;
    std::vector<SparseSequence> device_seqs;
    SparseParams params = Params(shape);
    int64_t row = 1;  // rows before, between and after pieces belong to nobody
    for (const Piece& piece : pieces) {
      contexts.push_back(std::make_unique<Context>(*cpu_, shape, std::max<int64_t>(1, piece.tokens), ++seed));
      const int64_t position = piece.tokens - piece.rows;
      if (piece.rows > 0) seqs.push_back({row, piece.rows, position, contexts.back()->host().pages()});
      device_seqs.push_back({row, piece.rows, position, piece.rows > 0 ? contexts.back()->device_pages() : nullptr});
      params.max_rows = std::max(params.max_rows, piece.rows);
      params.max_tokens = std::max(params.max_tokens, piece.tokens);
      row += piece.rows + 1;
    }
    const DeviceArray<SparseSequence> sequences(device_seqs);
    params.sequences = sequences.data();
    params.count = device_seqs.size();

    const std::vector<float> q = Rounded(Random(row * width, ++seed, query_scale));
    const std::vector<int32_t> blocks = Choose(shape, seqs, row, ++seed);
    const Array host_q(*cpu_, row, width, q), sparse(*cpu_, row, width), dense(*cpu_, row, width);
    ASSERT_TRUE(cpu_->AttendBlocks(shape, host_q.matrix(), seqs, blocks.data(), sparse.matrix()).ok());
    ASSERT_TRUE(cpu_->AttendDense(shape, host_q.matrix(), seqs, dense.matrix()).ok());
    if (row < 40) ExpectFloat64(shape, *contexts[0], seqs, host_q, blocks, sparse);

    const DeviceArray<int32_t> device_blocks(blocks);
    for (Arch arch : archs_) {
      params.arch = arch;
      SCOPED_TRACE(arch == Arch::kSm80 ? "sm_80" : "sm_90a");
      Run(params, q, row, width, device_blocks.data(), seqs, sparse);
      Run(params, q, row, width, nullptr, seqs, dense);
      if (HasFatalFailure()) return;
    }
  }

  // One of the operations on the device, twice over the same workspace: same bits, and the CPU's values.
  void Run(const SparseParams& params, const std::vector<float>& q, int64_t rows, int64_t width, const int32_t* blocks,
           const std::vector<SparseRows>& seqs, const Array& want) {
    const int64_t q_stride = width + 24, out_stride = width + 8;
    std::vector<float> padded(rows * q_stride, NAN);
    for (int64_t r = 0; r < rows; ++r) std::copy_n(&q[r * width], width, &padded[r * q_stride]);
    const DeviceArray<bf16> device_q(ToBf16(padded)), out(rows * out_stride), again(rows * out_stride);
    const int64_t workspace_bytes = AttendWorkspaceBytes(params);
    const DeviceArray<std::byte> workspace(workspace_bytes + 64);
    for (const DeviceArray<bf16>* to : {&out, &again}) {
      const ConstRows from = {device_q.data(), q_stride};
      const Rows result = {to->data(), out_stride};
      ASSERT_EQ(blocks != nullptr ? AttendBlocks(params, from, blocks, result, workspace.data(), nullptr)
                                  : AttendDense(params, from, result, workspace.data(), nullptr),
                cudaSuccess);
    }
    Finish();
    const std::vector<bf16> got = out.Read(), got_again = again.Read();
    EXPECT_EQ(std::memcmp(got.data(), got_again.data(), got.size() * sizeof(bf16)), 0);
    const std::vector<std::byte> used = workspace.Read();
    for (int64_t i = workspace_bytes; i < workspace_bytes + 64; ++i) ASSERT_EQ(used[i], std::byte{0xff});

    const int64_t dim = params.kv.head_dim;
    std::vector<bool> owned(rows, false);
    for (const SparseRows& seq : seqs) std::fill_n(owned.begin() + seq.row, seq.rows, true);
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t c = owned[r] ? width : 0; c < out_stride; ++c) {
        ASSERT_EQ(std::memcmp(&got[r * out_stride + c], "\xff\xff", 2), 0) << "row " << r << " column " << c;
      }
      for (int64_t h = 0; owned[r] && h < params.heads; ++h) {
        double difference = 0, size = 0;
        for (int64_t c = h * dim; c < (h + 1) * dim; ++c) {
          difference += std::pow(__bfloat162float(got[r * out_stride + c]) - want.at(r, c), 2);
          size += std::pow(want.at(r, c), 2);
        }
        // One block of twenty missing changes a row by more than a tenth; bf16 weights and results by 2^-8 or so.
        ASSERT_LE(std::sqrt(difference), 0.01 * std::sqrt(size)) << "row " << r << " head " << h;
      }
    }
  }

  // The CPU's results are right too, where float64 is affordable: the first sequence's first and last rows.
  void ExpectFloat64(const SparseShape& shape, const Context& context, const std::vector<SparseRows>& seqs,
                     const Array& q, const std::vector<int32_t>& blocks, const Array& sparse) {
    const int64_t dim = shape.kv.head_dim, group = shape.heads / shape.kv.kv_heads;
    const SparseRows& seq = seqs[0];
    for (int64_t r : {seq.row, seq.row + seq.rows - 1}) {
      for (int64_t h = 0; h < shape.heads; ++h) {
        const int32_t* chosen = &blocks[(r * shape.kv.kv_heads + h / group) * shape.top_blocks];
        std::vector<int64_t> tokens;
        for (int64_t t = 0; t <= seq.position + r - seq.row; ++t) {
          if (std::count(chosen, chosen + shape.top_blocks, t / kBlockTokens) > 0) tokens.push_back(t);
        }
        const reference::Vector want = reference::Attend(
            q.row(r) + h * dim, [&](int64_t t) { return context.host().key(t, h / group); },
            [&](int64_t t) { return context.host().value(t, h / group); }, tokens, dim);
        for (int64_t c = 0; c < dim; ++c) ASSERT_NEAR(sparse.at(r, h * dim + c), want[c], 1e-4);
      }
    }
  }

  SparseParams Params(const SparseShape& shape) const {
    SparseParams params;
    params.kv = shape.kv;
    params.kv.type = DType::kBFloat16;
    params.heads = shape.heads;
    params.init_blocks = shape.init_blocks;
    params.local_blocks = shape.local_blocks;
    params.top_blocks = shape.top_blocks;
    params.multiprocessors = multiprocessors_;
    return params;
  }

  std::unique_ptr<Ops> cpu_ = CreateCpuOps(8).value();
};

// For compute-sanitizer (tests/gpu/run), as are its likes in other tests: every kernel, at sizes at which its loops and
// rings of buffers go round a second time.
TEST_F(AttendTest, SmallestOfEveryKernel) {
  for (int64_t dim : {32, 64, 128}) {
    ExpectSameAsCpu(Shape(16, 1, dim), {{850, 14}}, 18);
    ExpectSameAsCpu(Shape(16, 1, dim), {{850, 1}, {0, 0}, {70, 1}}, 19);
    if (HasFatalFailure()) return;
  }
}

TEST_F(AttendTest, EveryHeadSizeAndGroup) {
  for (const SparseShape& shape : {Shape(16, 1, 128), Shape(32, 2, 128), Shape(4, 1, 128), Shape(16, 1, 64),
                                   Shape(16, 2, 64), Shape(3, 3, 64), Shape(16, 1, 32), Shape(12, 2, 32)}) {
    SCOPED_TRACE(shape.heads * 1000 + shape.kv.head_dim);
    ExpectSameAsCpu(shape, {{1300, 37}}, 1);
    ExpectSameAsCpu(shape, {{1300, 1}}, 2);
    if (HasFatalFailure()) return;
  }
}

TEST_F(AttendTest, RowsAroundTileEdges) {
  const SparseShape shape = Shape(16, 1, 128);
  for (int64_t rows : {2, 3, 4, 5, 7, 8, 9, 11, 12, 13, 15, 16, 17, 23, 24, 25, 48, 49, 64, 65}) {
    SCOPED_TRACE(rows);
    ExpectSameAsCpu(shape, {{rows, rows}}, 3);
    ExpectSameAsCpu(shape, {{1061, rows}}, 4);  // across a page border
    if (HasFatalFailure()) return;
  }
}

TEST_F(AttendTest, SequencesOfAPrefillBatch) {
  ExpectSameAsCpu(Shape(32, 2, 128), {{700, 100}, {64, 64}, {0, 0}, {1, 1}, {1025, 3}, {0, 0}, {2300, 29}}, 5);
  ExpectSameAsCpu(Shape(8, 2, 64), {{65, 1}, {0, 0}, {1100, 90}}, 6);
}

TEST_F(AttendTest, ChoicesOfTheReleasedModel) { ExpectSameAsCpu(Shape(32, 2, 128, 1, 32, 64), {{12345, 130}}, 7); }

TEST_F(AttendTest, ConfigurationsAtTheirEdges) {
  for (const SparseShape& shape : {Shape(16, 1, 64, 1, 2, 0), Shape(16, 1, 64, 0, 0, 1), Shape(16, 1, 64, 1, 40, 4)}) {
    ExpectSameAsCpu(shape, {{700, 30}}, 8);
    ExpectSameAsCpu(shape, {{700, 1}}, 9);
    if (HasFatalFailure()) return;
  }
}

TEST_F(AttendTest, DecodeBatches) {
  const std::vector<Piece> pieces = {{1, 1},    {64, 1},   {0, 0}, {65, 1},  {700, 1},
                                     {1024, 1}, {1025, 1}, {0, 0}, {6001, 1}};
  // Splits follow the number of multiprocessors: one, a few, more than blocks.
  for (int multiprocessors : {1, 30, multiprocessors_, 2000}) {
    multiprocessors_ = multiprocessors;
    SCOPED_TRACE(multiprocessors);
    ExpectSameAsCpu(Shape(32, 2, 128), pieces, 10);
    ExpectSameAsCpu(Shape(4, 2, 32), pieces, 11);
    if (HasFatalFailure()) return;
  }
  ExpectSameAsCpu(Shape(32, 2, 128, 1, 32, 64), pieces, 12);
  ExpectSameAsCpu(Shape(8, 2, 64), pieces, 13);
}

// Weights of nearly one for a single key: the running maximum must keep every exponential in range.
TEST_F(AttendTest, LargeScores) {
  ExpectSameAsCpu(Shape(16, 1, 128), {{900, 20}}, 14, 60);
  ExpectSameAsCpu(Shape(16, 1, 128), {{900, 1}}, 15, 60);
}

TEST_F(AttendTest, TokensWithoutBlocksGetZeros) {
  const SparseShape shape = Shape(16, 1, 64);
  const int64_t tokens = 100, width = shape.heads * shape.kv.head_dim;
  const Context context(*cpu_, shape, tokens, 16);
  for (int64_t rows : {1, 5}) {
    const int64_t position = tokens - rows;
    const std::vector<SparseRows> seqs = {{0, rows, position, context.host().pages()}};
    const DeviceArray<SparseSequence> sequences(
        std::vector<SparseSequence>{{0, rows, position, context.device_pages()}});
    const DeviceArray<int32_t> blocks(std::vector<int32_t>(rows * shape.top_blocks, -1));
    const Array zeros(*cpu_, rows, width, std::vector<float>(rows * width));
    SparseParams params = Params(shape);
    params.sequences = sequences.data();
    params.count = 1;
    params.max_rows = rows;
    params.max_tokens = tokens;
    for (Arch arch : archs_) {
      params.arch = arch;
      Run(params, Random(rows * width, 17), rows, width, blocks.data(), seqs, zeros);
    }
  }
}

TEST_F(AttendTest, NothingToDo) {
  SparseParams params = Params(Shape(16, 1, 128));
  EXPECT_EQ(AttendDense(params, {}, {}, nullptr, nullptr), cudaSuccess);
  Finish();
}

TEST_F(AttendTest, RefusesOtherHeadSizes) {
  SparseParams params = Params(Shape(16, 1, 96));
  params.count = 1;
  for (int64_t rows : {1, 2}) {
    params.max_rows = rows;
    EXPECT_EQ(AttendDense(params, {}, {}, nullptr, nullptr), cudaErrorInvalidValue);
  }
}

}  // namespace
}  // namespace salamander::kernels::cuda
