// Keys, values and tiers in pages: every byte of every page, written or not.
#include <memory>

#include "tests/kernels/backend_fixture.h"
#include "tests/kernels/cuda/device_rows.h"
#include "tests/kernels/reference.h"

namespace salamander::kernels::cuda {
namespace {

constexpr std::byte kPoison{0xff};

// One sequence: its pages on the device, and what they should hold.
class Context {
 public:
  Context(const KvLayout& kv, int64_t tokens, uint32_t seed)
      : kv_(kv), width_(kv.kv_heads * kv.head_dim), keys_(Rounded(Random(tokens * width_, seed))) {
    values_ = Rounded(Random(tokens * width_, seed + 1));
    std::vector<std::byte*> table;
    for (int64_t first = 0; first < tokens; first += kPageTokens) {
      want_.emplace_back(kv.page_bytes(), kPoison);
      pages_.push_back(std::make_unique<DeviceArray<std::byte>>(kv.page_bytes()));
      table.push_back(pages_.back()->data());
    }
    table_ = std::make_unique<DeviceArray<std::byte*>>(table);
  }

  std::byte* const* pages() const { return table_->data(); }
  int64_t tokens() const { return tokens_; }
  const float* key(int64_t token, int64_t head) const { return &keys_[token * width_ + head * kv_.head_dim]; }
  const float* keys(int64_t token) const { return &keys_[token * width_]; }
  const float* values(int64_t token) const { return &values_[token * width_]; }

  // `rows` more tokens were appended.
  void Append(int64_t rows) {
    for (int64_t t = tokens_; t < tokens_ + rows; ++t) {
      if (t % kBlockTokens == 0) {
        std::byte* block = &want_[t / kPageTokens][t % kPageTokens / kBlockTokens * kv_.block_bytes()];
        std::fill(block, block + kv_.block_bytes(), std::byte{0});
      }
      for (int64_t head = 0; head < kv_.kv_heads; ++head) {
        for (int64_t c = 0; c < kv_.head_dim; ++c) {
          const int64_t block = t % kPageTokens / kBlockTokens, at = t % kBlockTokens * kv_.row_bytes() + c * 2;
          Put(t / kPageTokens, kv_.keys(block, head) + at, key(t, head)[c]);
          Put(t / kPageTokens, kv_.values(block, head) + at, values(t)[head * kv_.head_dim + c]);
        }
      }
    }
    tokens_ += rows;
  }

  // Fails unless the tiers hold the means of the windows whole in the tokens so far, and all else is as it should be.
  void Check() {
    CheckTier(K1Count(tokens_), kPageK1, kK1Stride, kK1Window,
              [&](int64_t head, int64_t window) { return kv_.k1(head, window); });
    CheckTier(K2Count(tokens_), kPageK2, kK2Stride, kK2Window,
              [&](int64_t head, int64_t window) { return kv_.k2(head, window); });
    for (size_t page = 0; page < pages_.size(); ++page) {
      const std::vector<std::byte> got = pages_[page]->Read();
      const auto at = std::mismatch(got.begin(), got.end(), want_[page].begin()).first - got.begin();
      ASSERT_EQ(at, kv_.page_bytes()) << "page " << page << " after " << tokens_ << " tokens";
    }
  }

  std::vector<std::vector<std::byte>> Read() const {
    std::vector<std::vector<std::byte>> all;
    for (const auto& page : pages_) all.push_back(page->Read());
    return all;
  }

 private:
  void Put(int64_t page, int64_t at, float value) {
    const bf16 bits = __float2bfloat16(value);
    std::memcpy(&want_[page][at], &bits, sizeof(bits));
  }

  // Takes what the device has as wanted, where it is the mean.
  template <class OffsetOf>
  void CheckTier(int64_t count, int64_t page_windows, int64_t stride, int64_t window, const OffsetOf& offset_of) {
    for (int64_t j = 0; j < count; ++j) {
      const int64_t page = j / page_windows;
      if (j % page_windows == 0) read_ = pages_[page]->Read();
      for (int64_t head = 0; head < kv_.kv_heads; ++head) {
        const int64_t offset = offset_of(head, j % page_windows);
        const reference::Vector mean =
            reference::Mean([&](int64_t t) { return key(t, head); }, j * stride, window, kv_.head_dim);
        for (int64_t c = 0; c < kv_.head_dim; ++c) {
          bf16 got;
          std::memcpy(&got, &read_[offset + 2 * c], sizeof(got));
          ASSERT_TRUE(IsBf16Of(__bfloat162float(got), mean[c], 1e-6)) << window << " " << j << " " << head << " " << c;
          Put(page, offset + 2 * c, __bfloat162float(got));
        }
      }
    }
  }

  KvLayout kv_;
  int64_t width_, tokens_ = 0;
  std::vector<float> keys_, values_;
  std::vector<std::vector<std::byte>> want_;
  std::vector<std::unique_ptr<DeviceArray<std::byte>>> pages_;
  std::unique_ptr<DeviceArray<std::byte*>> table_;
  std::vector<std::byte> read_;
};

KvLayout Layout(int64_t kv_heads, int64_t dim) { return {kv_heads, dim, DType::kBFloat16}; }

class CudaKvTest : public GpuTest {
 protected:
  // Appends rows[i] tokens to contexts[i], all in one call; rows of the batch lie in reverse order of the sequences.
  // More rows than there are stand in max_rows, as in a replay. `pad` columns lie between rows, `lead` before them.
  static void Append(const KvLayout& kv, const std::vector<Context*>& contexts, const std::vector<int64_t>& rows,
                     int64_t pad = 8, int64_t lead = 0, int64_t more_rows = 0) {
    const int64_t width = kv.kv_heads * kv.head_dim;
    std::vector<SparseSequence> sequences(contexts.size());
    std::vector<float> k, v;
    int64_t row = 0, max_rows = 0, max_tokens = 0;
    for (size_t i = contexts.size(); i-- > 0;) {
      max_rows = std::max(max_rows, rows[i]);
      if (rows[i] == 0) continue;  // padding: no pages either
      const int64_t position = contexts[i]->tokens();
      sequences[i] = {row, rows[i], position, contexts[i]->pages()};
      k.insert(k.end(), contexts[i]->keys(position), contexts[i]->keys(position) + rows[i] * width);
      v.insert(v.end(), contexts[i]->values(position), contexts[i]->values(position) + rows[i] * width);
      row += rows[i];
      max_tokens = std::max(max_tokens, position + rows[i]);
    }
    const DeviceRows device_k(row, width, k, pad, lead), device_v(row, width, v, pad, lead);
    const DeviceArray<SparseSequence> device_sequences(sequences);
    const SparseParams params = {.kv = kv,
                                 .heads = kv.kv_heads,
                                 .sequences = device_sequences.data(),
                                 .count = static_cast<int64_t>(sequences.size()),
                                 .max_rows = max_rows + more_rows,
                                 .max_tokens = max_tokens + more_rows};
    ASSERT_EQ(AppendKv(params, device_k.const_rows(), device_v.const_rows(), nullptr), cudaSuccess);
    ASSERT_EQ(PoolTiers(params, nullptr), cudaSuccess);
    Finish();
    for (size_t i = 0; i < contexts.size(); ++i) contexts[i]->Append(rows[i]);
  }
};

TEST_F(CudaKvTest, SpansOfAnyLength) {
  for (int64_t dim : {32, 64, 128}) {
    for (int64_t kv_heads : {1, 2, 3}) {
      const KvLayout kv = Layout(kv_heads, dim);
      Context context(kv, 3200, 1);
      // Ends on and beside blocks, windows of both tiers and pages; within one block; over several pages.
      for (int64_t rows : {1, 30, 1, 31, 1, 63, 1, 128, 15, 48, 640, 64, 2, 190, 1, 1100, 7, 200}) {
        Append(kv, {&context}, {rows}, rows % 2 == 0 ? 8 : 3, rows % 3 == 0 ? 1 : 0);
        context.Check();
        if (HasFatalFailure()) return;
      }
    }
  }
}

// For compute-sanitizer (tests/gpu/run).
TEST_F(CudaKvTest, SmallestOfEveryKernel) {
  for (int64_t dim : {32, 64, 128}) {
    const KvLayout kv = Layout(2, dim);
    Context context(kv, 1300, 1), other(kv, 100, 2);
    for (const std::vector<int64_t>& rows : std::vector<std::vector<int64_t>>{{1100, 0}, {1, 1}, {63, 31}, {1, 1}}) {
      Append(kv, {&context, &other}, rows);
    }
    context.Check();
    other.Check();
    if (HasFatalFailure()) return;
  }
}

TEST_F(CudaKvTest, OneTokenAtATime) {
  const KvLayout kv = Layout(2, 32);
  Context context(kv, 1200, 1);
  Append(kv, {&context}, {880});
  for (int64_t t = 880; t < 1200; ++t) {
    Append(kv, {&context}, {1});
    if (t % 7 == 0 || t % 64 >= 62) context.Check();
    if (HasFatalFailure()) return;
  }
  context.Check();
}

TEST_F(CudaKvTest, SeveralSequencesAndPadding) {
  const KvLayout kv = Layout(2, 128);
  Context a(kv, 1400, 1), b(kv, 1400, 2), c(kv, 1400, 3), d(kv, 1400, 4);
  const std::vector<Context*> all = {&a, &b, &c, &d};
  for (const std::vector<int64_t>& rows : std::vector<std::vector<int64_t>>{
           {1000, 65, 0, 1}, {0, 0, 0, 62}, {23, 1, 127, 0}, {1, 1, 1, 1}, {100, 1000, 5, 64}}) {
    Append(kv, all, rows, 8, 0, 77);
    for (Context* context : all) context->Check();
    if (HasFatalFailure()) return;
  }
}

TEST_F(CudaKvTest, DecodeStepOfSixtyFour) {
  const KvLayout kv = Layout(2, 128);
  std::vector<std::unique_ptr<Context>> contexts;
  std::vector<Context*> all;
  std::vector<int64_t> rows;
  for (int i = 0; i < 64; ++i) {
    contexts.push_back(std::make_unique<Context>(kv, 330, i));
    all.push_back(contexts.back().get());
    rows.push_back(100 + 3 * i);
  }
  Append(kv, all, rows);
  for (int step = 0; step < 20; ++step) {
    Append(kv, all, std::vector<int64_t>(64, 1));
    if (HasFatalFailure()) return;
  }
  for (Context* context : all) context->Check();
}

// However a prompt is split, its pages hold the same bits.
TEST_F(CudaKvTest, SplitsLeaveTheSameTiers) {
  const KvLayout kv = Layout(2, 64);
  Context whole(kv, 1500, 1), split(kv, 1500, 1);
  Append(kv, {&whole}, {1500});
  for (int64_t rows : {700, 1, 1, 90, 600, 108}) Append(kv, {&split}, {rows});
  const auto a = whole.Read(), b = split.Read();
  for (size_t page = 0; page < a.size(); ++page) EXPECT_TRUE(a[page] == b[page]) << page;
}

TEST_F(CudaKvTest, NothingToDo) {
  EXPECT_EQ(AppendKv({.kv = Layout(2, 64)}, {}, {}, nullptr), cudaSuccess);
  EXPECT_EQ(PoolTiers({.kv = Layout(2, 64)}, nullptr), cudaSuccess);
}

}  // namespace
}  // namespace salamander::kernels::cuda
