// Repeats on a GPU: what graphs replay is what the ops would have done, and what does not fit a graph is refused.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/base/status_macros.h"
#include "tests/kernels/cuda/ops_fixture.h"

namespace salamander::kernels {
namespace {

using ::testing::HasSubstr;

constexpr int64_t kHeads = 4, kKvHeads = 2, kDim = 32, kHidden = 64, kVocab = 50;
constexpr int64_t kQ = kHeads * kDim, kKv = kKvHeads * kDim;

SparseShape Sparse() {
  return {
      .heads = kHeads, .kv = {kKvHeads, kDim, DType::kBFloat16}, .init_blocks = 1, .local_blocks = 1, .top_blocks = 4};
}
LightningShape Recurrent() {
  return {.heads = kHeads, .kv_heads = kKvHeads, .head_dim = kDim, .scale = 0.2f, .slopes = {0.5f, 0.25f, 0.1f, 0.01f}};
}

// A sequence of up to one page.
class Context {
 public:
  explicit Context(Ops& ops)
      : state_(ops, std::vector<float>(kHeads * kDim * kDim, 0.0f)),
        page_(ops, std::vector<uint8_t>(Sparse().kv.page_bytes(), 0)),
        table_(ops, std::vector<std::byte*>{reinterpret_cast<std::byte*>(page_.data())}) {}
  std::byte* const* pages() const { return table_.data(); }
  float* state() const { return state_.data(); }
  std::vector<float> ReadState() const { return state_.Read(); }

 private:
  OpsArray<float> state_;
  OpsArray<uint8_t> page_;
  OpsArray<std::byte*> table_;
};

// One entry of a batch; without context, padding.
struct Entry {
  const Context* context = nullptr;
  int32_t token = 0;
  int64_t position = 0;
};

// The weights and buffers of a model of one layer that has both kinds of attention.
class Step {
 public:
  Step(Ops& ops, int64_t rows)
      : ops_(ops),
        embedding_(RandomWeights(kVocab, kHidden, 1)),
        projection_(RandomWeights(kQ + 2 * kKv, kHidden, 2)),
        norm_(ops, std::vector<float>(kHidden, 1.0f)),
        hidden_(ops, rows, kHidden),
        normed_(ops, rows, kHidden),
        projected_(ops, rows, kQ + 2 * kKv),
        attended_(ops, rows, kQ, std::vector<float>(rows * kQ, 0.0f)),
        chosen_(ops, rows, kQ, std::vector<float>(rows * kQ, 0.0f)),
        mixed_(ops, rows, kQ, std::vector<float>(rows * kQ, 0.0f)),
        blocks_(ops, rows * kKvHeads * 4) {}

  // The ops between BeginRepeat and EndRepeat.
  absl::Status Run(const std::vector<Entry>& batch) {
    std::vector<int32_t> tokens;
    std::vector<int64_t> positions;
    std::vector<SparseRows> sparse;
    std::vector<LightningRows> lightning;
    for (const Entry& entry : batch) {
      const auto row = static_cast<int64_t>(tokens.size());
      tokens.push_back(entry.token);
      positions.push_back(entry.position);
      sparse.push_back({});
      lightning.push_back({});
      if (entry.context == nullptr) continue;
      sparse.back() = {row, 1, entry.position, entry.context->pages()};
      lightning.back() = {row, 1, entry.position, entry.context->state()};
    }
    const Matrix q = projected_.columns(0, kQ), k = projected_.columns(kQ, kKv), v = projected_.columns(kQ + kKv, kKv);
    RETURN_IF_ERROR(ops_.Embed(tokens, *embedding_, 2, hidden_.matrix()));
    RETURN_IF_ERROR(ops_.AddRmsNorm(hidden_.matrix(), {}, 1, norm_.data(), kEps, 1, normed_.matrix()));
    RETURN_IF_ERROR(ops_.MatMul(normed_.matrix(), *projection_, nullptr, projected_.matrix()));
    RETURN_IF_ERROR(ops_.HeadNormRope(q, kDim, nullptr, kEps, 10000, positions));
    RETURN_IF_ERROR(ops_.AppendKv(Sparse(), k, v, sparse));
    RETURN_IF_ERROR(ops_.PoolTiers(Sparse(), sparse));
    RETURN_IF_ERROR(ops_.SelectBlocks(Sparse(), q, sparse, blocks_.data()));
    RETURN_IF_ERROR(ops_.AttendBlocks(Sparse(), q, sparse, blocks_.data(), chosen_.matrix()));
    RETURN_IF_ERROR(ops_.AttendDense(Sparse(), q, sparse, attended_.matrix()));
    return ops_.Lightning(Recurrent(), q, k, v, lightning, mixed_.matrix());
  }
  // Some of them only.
  absl::Status RunOther(const std::vector<Entry>& batch) {
    RETURN_IF_ERROR(ops_.Embed(std::vector<int32_t>(batch.size(), 1), *embedding_, 2, hidden_.matrix()));
    return ops_.SiluMul(normed_.matrix(), attended_.columns(0, kHidden / 2));
  }
  absl::Status RunFewer(const std::vector<Entry>& batch) {
    return ops_.Embed(std::vector<int32_t>(batch.size(), 1), *embedding_, 2, hidden_.matrix());
  }

  std::vector<float> Read() const {
    std::vector<float> all = attended_.Read();
    for (const OpsRows* rows : {&chosen_, &mixed_}) {
      const std::vector<float> values = rows->Read();
      all.insert(all.end(), values.begin(), values.end());
    }
    return all;
  }

 private:
  std::unique_ptr<Weight> RandomWeights(int64_t out, int64_t in, uint64_t seed) {
    const WeightPart part = {.rows = out, .cols = in, .seed = seed};
    return ops_.PrepareWeight(absl::MakeConstSpan(&part, 1)).value();
  }

  Ops& ops_;
  std::unique_ptr<Weight> embedding_, projection_;
  OpsArray<float> norm_;
  FloatOpsRows hidden_;
  OpsRows normed_, projected_, attended_, chosen_, mixed_;
  OpsArray<int32_t> blocks_;
};

class CudaRepeatsTest : public CudaOpsTest {
 protected:
  static constexpr int64_t kContexts = 5;

  void SetUp() override {
    CudaOpsTest::SetUp();
    if (gpu_ == nullptr) return;
    for (int i = 0; i < kContexts; ++i) {
      contexts_.push_back(std::make_unique<Context>(*gpu_));
      eager_contexts_.push_back(std::make_unique<Context>(*gpu_));
    }
  }
  void TearDown() override {
    contexts_.clear();
    eager_contexts_.clear();
  }

  // Contexts come and go, one or two of four rows are padding, positions go on by one.
  std::vector<Entry> Batch(int64_t step, const std::vector<std::unique_ptr<Context>>& contexts) const {
    std::vector<Entry> batch(4);
    for (int64_t i = 0; i < 3 - step % 2; ++i) {
      const int64_t c = (step + 2 * i) % kContexts;
      batch[(i + step) % 4] = {contexts[c].get(), static_cast<int32_t>((7 * step + i) % kVocab), step};
    }
    return batch;
  }

  absl::Status Repeat(Step& step, const RepeatKey& key, const std::vector<Entry>& batch) {
    RETURN_IF_ERROR(gpu_->BeginRepeat(key));
    const absl::Status run = step.Run(batch);
    const absl::Status ended = gpu_->EndRepeat();
    RETURN_IF_ERROR(run);
    return ended;
  }

  // Step by step beside ops that no graph replays. Both sides begin at `first`, with contexts that are alike.
  void ExpectSameAsOps(Step& repeated, Step& eager, const RepeatKey& key, int64_t first, int64_t count) {
    for (int64_t step = first; step < first + count; ++step) {
      SCOPED_TRACE(step);
      absl::Status status = Repeat(repeated, key, Batch(step, contexts_));
      ASSERT_TRUE(status.ok()) << status;
      const std::vector<float> got = repeated.Read();
      gpu_->SetTiming(true);  // Nothing is recorded or replayed.
      status = Repeat(eager, key, Batch(step, eager_contexts_));
      gpu_->SetTiming(false);
      ASSERT_TRUE(status.ok()) << status;
      ASSERT_EQ(got, eager.Read());
    }
    for (int i = 0; i < kContexts; ++i) EXPECT_EQ(contexts_[i]->ReadState(), eager_contexts_[i]->ReadState());
  }

  const RepeatKey key_ = {.rows = 4, .max_tokens = 1024};
  std::vector<std::unique_ptr<Context>> contexts_, eager_contexts_;
};

TEST_F(CudaRepeatsTest, ReplaysDoWhatTheOpsWouldDo) {
  Step repeated(*gpu_, 4), eager(*gpu_, 4);
  ExpectSameAsOps(repeated, eager, key_, 0, 40);
}

TEST_F(CudaRepeatsTest, ReplaysInTheQueueKeepTheirLists) {
  Step repeated(*gpu_, 4), eager(*gpu_, 4);
  // Nobody waits between these, so each must have had its own lists.
  for (int64_t step = 0; step < 40; ++step) {
    const absl::Status status = Repeat(repeated, key_, Batch(step, contexts_));
    ASSERT_TRUE(status.ok()) << status;
  }
  gpu_->SetTiming(true);
  for (int64_t step = 0; step < 40; ++step) ASSERT_TRUE(Repeat(eager, key_, Batch(step, eager_contexts_)).ok());
  gpu_->SetTiming(false);
  EXPECT_EQ(repeated.Read(), eager.Read());
  for (int i = 0; i < kContexts; ++i) EXPECT_EQ(contexts_[i]->ReadState(), eager_contexts_[i]->ReadState());
}

TEST_F(CudaRepeatsTest, ManyKeysTakeTurns) {
  Step repeated(*gpu_, 4), eager(*gpu_, 4);
  const int64_t before = gpu_->own_bytes();
  for (int variant = 0; variant < 40; ++variant) {
    RepeatKey key = key_;
    key.variant = variant;
    ExpectSameAsOps(repeated, eager, key, 4 * variant, 4);
  }
  EXPECT_GT(gpu_->own_bytes(), before);
  EXPECT_LT(gpu_->own_bytes(), before + (1 << 20));
  ExpectSameAsOps(repeated, eager, key_, 160, 4);  // was given up for others
}

TEST_F(CudaRepeatsTest, FreedBuffersAreForgotten) {
  for (int64_t first = 0; first < 16; first += 4) {
    // Both new: what rows of no sequence hold is what was there before.
    Step repeated(*gpu_, 4), eager(*gpu_, 4);
    ExpectSameAsOps(repeated, eager, key_, first, 4);
  }
}

TEST_F(CudaRepeatsTest, OtherOpsThanRecordedAreNamedAndRecordedAnew) {
  Step repeated(*gpu_, 4), eager(*gpu_, 4);
  ExpectSameAsOps(repeated, eager, key_, 0, 4);
  ASSERT_TRUE(gpu_->BeginRepeat(key_).ok());
  const absl::Status other = repeated.RunOther(Batch(4, contexts_));
  EXPECT_EQ(other.code(), absl::StatusCode::kInternal);
  EXPECT_EQ(other.message(), "op 1 is silu_mul, recorded was add_rms_norm");
  EXPECT_EQ(gpu_->EndRepeat().code(), absl::StatusCode::kInternal);
  ExpectSameAsOps(repeated, eager, key_, 4, 4);

  ASSERT_TRUE(gpu_->BeginRepeat(key_).ok());
  EXPECT_TRUE(repeated.RunFewer(Batch(8, contexts_)).ok());
  EXPECT_THAT(gpu_->EndRepeat().message(), HasSubstr("ended after 1 of 10 recorded ops"));
  ExpectSameAsOps(repeated, eager, key_, 8, 4);

  Step elsewhere(*gpu_, 4);
  EXPECT_THAT(Repeat(elsewhere, key_, Batch(12, contexts_)).message(),
              HasSubstr("op 0, embed, has other shapes, weights or buffers"));
}

TEST_F(CudaRepeatsTest, ListsThatTheKeyDoesNotAllowAreRefused) {
  Step step(*gpu_, 4);
  const SparseRows two_rows = {0, 2, 0, contexts_[0]->pages()}, far = {0, 1, 1024, contexts_[0]->pages()};
  auto pool = [&](std::vector<SparseRows> rows) {
    EXPECT_TRUE(gpu_->BeginRepeat(key_).ok());
    const absl::Status status = gpu_->PoolTiers(Sparse(), rows);
    EXPECT_EQ(gpu_->EndRepeat().code(), status.code());
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    return std::string(status.message());
  };
  EXPECT_THAT(pool({two_rows, {}, {}, {}}),
              HasSubstr("pool_tiers: rows of a sequence, at most, of a repeat must be 1"));
  EXPECT_THAT(pool({far, {}, {}, {}}), HasSubstr("tokens of a sequence, at most, of a repeat must be 1024, got 1025"));
  EXPECT_THAT(pool({{}, {}}), HasSubstr("sequences of a repeat must be 4, got 2"));
  for (int64_t i = 0; i < 4; ++i) EXPECT_TRUE(Repeat(step, key_, Batch(i, contexts_)).ok());

  EXPECT_EQ(gpu_->EndRepeat().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_TRUE(gpu_->BeginRepeat(key_).ok());
  EXPECT_EQ(gpu_->BeginRepeat(key_).code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_FALSE(gpu_->EndRepeat().ok());
}

}  // namespace
}  // namespace salamander::kernels
