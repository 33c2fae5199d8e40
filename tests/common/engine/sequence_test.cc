#include "common/engine/sequence.h"

#include <gtest/gtest.h>

#include <cstring>

#include "common/engine/forward.h"
#include "common/engine/local_session.h"
#include "tests/common/engine/golden_case.h"

namespace salamander::engine {
namespace {

class SequenceTest : public testing::Test {
 protected:
  int64_t Held(MemoryOwner owner) const { return golden_.ledger.Read().held[static_cast<int>(owner)]; }

  GoldenCase golden_{"dense"};
};

TEST_F(SequenceTest, TakesWhatTheModelSaysAndGivesItBack) {
  const MemoryLedger::Snapshot before = golden_.ledger.Read();
  for (const int64_t tokens : {1, 1024, 1025, 5000}) {
    const auto sequence = Sequence::Create(*golden_.model, golden_.ledger, tokens);
    ASSERT_TRUE(sequence.ok()) << sequence.status();
    EXPECT_EQ(before.free - golden_.ledger.Read().free, golden_.model->SequenceBytes(tokens));
    const int64_t pages = (tokens + 1023) / 1024;
    EXPECT_EQ(Held(MemoryOwner::kPages), 2 * pages * (golden_.model->page_bytes() + 8));
    EXPECT_EQ(Held(MemoryOwner::kStates), 4 * golden_.model->state_bytes());
  }
  EXPECT_EQ(golden_.ledger.Read(), before);
}

TEST_F(SequenceTest, AllOrNothing) {
  MemoryLedger small(golden_.model->SequenceBytes(3000) - 1);
  const MemoryLedger::Snapshot before = small.Read();
  const auto sequence = Sequence::Create(*golden_.model, small, 3000);
  EXPECT_EQ(sequence.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(small.Read(), before);
  EXPECT_TRUE(Sequence::Create(*golden_.model, small, 2000).ok());
  EXPECT_EQ(Sequence::Create(*golden_.model, small, 0).status().message(),
            "max_tokens of a sequence must be ≥ 1, got 0");
}

TEST_F(SequenceTest, StatesBeginAtZero) {
  for (int round = 0; round < 2; ++round) {  // The second finds the first one's memory.
    const auto sequence = *Sequence::Create(*golden_.model, golden_.ledger, 10);
    for (const int64_t layer : {1, 2, 4, 5}) {
      const absl::Span<std::byte> state = sequence->State(layer);
      EXPECT_EQ(static_cast<int64_t>(state.size()), golden_.model->state_bytes());
      for (const std::byte byte : state) ASSERT_EQ(byte, std::byte{0});
      std::memset(state.data(), 0xff, state.size());
    }
  }
}

TEST_F(SequenceTest, KvBytesAreOneRunPerPage) {
  const auto sequence = *Sequence::Create(*golden_.model, golden_.ledger, 3000);
  const int64_t block_bytes = golden_.model->sparse_shape().kv.block_bytes();
  const auto runs = sequence->KvBytes(3, 960, 2050);
  ASSERT_EQ(runs.size(), 3u);
  EXPECT_EQ(runs[0].data(), sequence->pages(3)[0] + 15 * block_bytes);
  EXPECT_EQ(static_cast<int64_t>(runs[0].size()), block_bytes);
  EXPECT_EQ(runs[1].data(), sequence->pages(3)[1]);
  EXPECT_EQ(static_cast<int64_t>(runs[1].size()), 16 * block_bytes);
  EXPECT_EQ(runs[2].data(), sequence->pages(3)[2]);
  EXPECT_EQ(static_cast<int64_t>(runs[2].size()), block_bytes);  // Two tokens, but a whole block.
  EXPECT_TRUE(sequence->KvBytes(3, 64, 64).empty());
}

TEST_F(SequenceTest, UnusedRowsOfTheLastBlockAreZero) {
  const int64_t tokens = 70;
  const auto workspace = *Workspace::Create(*golden_.model, golden_.ledger, tokens);
  const auto activations = *SpanActivations::Create(*golden_.model, golden_.ledger, tokens);
  const auto sequence = *Sequence::Create(*golden_.model, golden_.ledger, tokens);
  for (const int64_t layer : {0, 3}) {
    for (const absl::Span<std::byte> run : sequence->KvBytes(layer, 0, 128)) std::memset(run.data(), 0xff, run.size());
  }
  SpanForward span(*sequence, *workspace, *activations, golden_.prompt().subspan(0, tokens), 0, tokens);
  while (span.phase() != SpanPhase::kFinished) ASSERT_TRUE(span.Step().ok());
  const int64_t row = golden_.model->config().kv_heads * golden_.model->config().head_dim;
  for (const int64_t layer : {0, 3}) {
    for (const bool values : {false, true}) {
      const std::vector<float> rows = ReadKv(*sequence, layer, 128, values);
      for (int64_t i = tokens * row; i < 128 * row; ++i) ASSERT_EQ(rows[i], 0) << layer << " " << i;
      for (int64_t i = 0; i < tokens * row; ++i) ASSERT_FALSE(std::isnan(rows[i])) << layer << " " << i;
    }
  }
}

TEST_F(SequenceTest, SpansThatDoNotFitAreRefused) {
  const auto workspace = *Workspace::Create(*golden_.model, golden_.ledger, 128);
  const auto activations = *SpanActivations::Create(*golden_.model, golden_.ledger, 128);
  const auto sequence = *Sequence::Create(*golden_.model, golden_.ledger, 300);
  auto step = [&](std::vector<int32_t> tokens, int64_t begin, int64_t prompt_tokens) {
    SpanForward span(*sequence, *workspace, *activations, tokens, begin, prompt_tokens);
    return std::string(span.Step().message());
  };
  EXPECT_EQ(step({}, 0, 300), "tokens of a span must be in [1, 128], got 0");
  EXPECT_EQ(step(std::vector<int32_t>(129, 1), 0, 300), "tokens of a span must be in [1, 128], got 129");
  EXPECT_EQ(step({1}, 65, 300), "begin of a span must be a multiple of 64, got 65");
  EXPECT_EQ(step({1, 2}, 256, 257), "span [256, 258) of a prompt of 257 tokens does not fit a sequence of 300");
  EXPECT_EQ(step({1, 2}, 256, 301), "span [256, 258) of a prompt of 301 tokens does not fit a sequence of 300");
  EXPECT_EQ(step({1, 512}, 128, 300), "token at position 129 must be in [0, 512), got 512");
}

class LocalSessionTest : public SequenceTest {
 protected:
  absl::StatusOr<LocalTiming> Generate(const GenerationOptions& options) {
    const auto session = *LocalSession::Create(golden_.model.get(), &golden_.ledger, 128);
    const MemoryLedger::Snapshot before = golden_.ledger.Read();
    auto result = session->Generate(
        golden_.prompt(), options, nullptr,
        [&](int64_t tokens) {
          progress_.push_back(tokens);
          return tokens < cancel_at_progress_;
        },
        [&](const GeneratedToken& token) {
          tokens_.push_back(token.token);
          reason_ = token.reason;
          return static_cast<int64_t>(tokens_.size()) < cancel_at_token_;
        });
    EXPECT_EQ(golden_.ledger.Read(), before);
    return result;
  }

  static GenerationOptions Options(int64_t max_tokens) {
    GenerationOptions options;
    options.sampling.temperature = 0;
    options.max_tokens = max_tokens;
    options.ignore_eos = true;
    return options;
  }

  std::vector<int64_t> progress_;
  std::vector<int32_t> tokens_;
  StopReason reason_ = StopReason::kNone;
  int64_t cancel_at_progress_ = 1 << 30;
  int64_t cancel_at_token_ = 1 << 30;
};

TEST_F(LocalSessionTest, TellsProgressAfterEverySpan) {
  ASSERT_TRUE(Generate(Options(5)).ok());
  EXPECT_EQ(progress_, (std::vector<int64_t>{128, 256, 300}));
  EXPECT_EQ(tokens_.size(), 5u);
  EXPECT_EQ(reason_, StopReason::kLength);
}

TEST_F(LocalSessionTest, CancelInPrefillAndInDecode) {
  cancel_at_progress_ = 256;
  EXPECT_EQ(Generate(Options(5)).status().code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(progress_, (std::vector<int64_t>{128, 256}));
  EXPECT_TRUE(tokens_.empty());
  cancel_at_progress_ = 1 << 30;
  cancel_at_token_ = 2;
  EXPECT_EQ(Generate(Options(5)).status().code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(tokens_.size(), 2u);
}

TEST_F(LocalSessionTest, RefusesBadRequestsAndSpanLengths) {
  EXPECT_EQ(Generate(Options(0)).status().message(), "max_tokens must be ≥ 1, got 0");
  GenerationOptions options = Options(5);
  options.sampling.temperature = -1;
  EXPECT_EQ(Generate(options).status().message(), "temperature must be ≥ 0, got -1");
  options = Options(5);
  options.stop_texts = {"x"};
  EXPECT_EQ(Generate(options).status().message(), "stop texts need a checkpoint with a tokenizer");
  EXPECT_EQ(LocalSession::Create(golden_.model.get(), &golden_.ledger, 100).status().message(),
            "span_tokens must be a positive multiple of 128, got 100");
}

TEST_F(SequenceTest, ModelIsInTheLedger) {
  const int64_t weights = Held(MemoryOwner::kWeights);
  EXPECT_GT(weights, 0);
  golden_.model.reset();
  EXPECT_EQ(Held(MemoryOwner::kWeights), 0);
}

}  // namespace
}  // namespace salamander::engine
