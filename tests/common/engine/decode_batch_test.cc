// A sequence's logits do not depend on its batch-mates, also when the batch mixes the dense and the sparse regime.
#include <gtest/gtest.h>

#include <cstring>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/engine/forward.h"
#include "tests/common/engine/golden_case.h"

namespace salamander::engine {
namespace {

// A sequence on its way, greedily.
struct Running {
  std::unique_ptr<Sequence> sequence;
  std::vector<float> hidden;
  int64_t position = 0;
  std::vector<int32_t> tokens;
  std::vector<std::vector<float>> logits;

  void Take(absl::Span<const float> row) {
    logits.emplace_back(row.begin(), row.end());
    tokens.push_back(Likeliest(row));
  }
};

constexpr int64_t kSteps = 40;

class DecodeBatchTest : public testing::Test {
 protected:
  // The first `tokens` of the case's prompt, repeated from the start when it is shorter, beginning at `offset`.
  Running Start(int64_t tokens, int64_t offset) {
    std::vector<int32_t> prompt;
    for (int64_t i = 0; i < tokens; ++i) prompt.push_back(golden_.prompt()[(offset + i) % golden_.prompt().size()]);
    const auto workspace = *Workspace::Create(*golden_.model, golden_.ledger, tokens);
    const auto activations = *SpanActivations::Create(*golden_.model, golden_.ledger, tokens);
    Running running;
    running.sequence = *Sequence::Create(*golden_.model, golden_.ledger, tokens + kSteps);
    SpanForward span(*running.sequence, *workspace, *activations, prompt, 0, tokens);
    while (span.phase() != SpanPhase::kFinished) {
      const absl::Status status = span.Step();
      if (!status.ok()) ADD_FAILURE() << status;
    }
    running.hidden = *span.LastHidden();
    running.position = tokens;
    return running;
  }

  absl::Status Decode(std::vector<Running*> batch) {
    ASSIGN_OR_RETURN(const auto decode, DecodeForward::Create(*golden_.model, golden_.ledger, batch.size()));
    const int64_t vocab_size = golden_.model->config().vocab_size;
    std::vector<const float*> hidden;
    for (const Running* running : batch) hidden.push_back(running->hidden.data());
    ASSIGN_OR_RETURN(std::vector<float> logits, LogitsAfter(*decode, decode->FirstStep(hidden)));
    for (int64_t step = 0; step < kSteps; ++step) {
      std::vector<DecodeRow> rows;
      for (size_t i = 0; i < batch.size(); ++i) {
        batch[i]->Take(absl::MakeConstSpan(logits).subspan(i * vocab_size, vocab_size));
        rows.push_back({batch[i]->sequence.get(), batch[i]->tokens.back(), batch[i]->position + step});
      }
      ASSIGN_OR_RETURN(logits, LogitsAfter(*decode, decode->Step(rows)));
    }
    return absl::OkStatus();
  }

  GoldenCase golden_{"crossing"};
};

TEST_F(DecodeBatchTest, BatchMatesDoNotMatter) {
  // Lengths around dense_len 512: one stays dense, one crosses on the way, two are sparse; also around block and page
  // boundaries.
  const std::vector<std::pair<int64_t, int64_t>> prompts = {{60, 3}, {490, 0}, {700, 11}, {1000, 200}};
  std::vector<Running> alone, together;
  for (const auto& [tokens, offset] : prompts) {
    alone.push_back(Start(tokens, offset));
    together.push_back(Start(tokens, offset));
  }
  for (Running& running : alone) {
    const absl::Status status = Decode({&running});
    ASSERT_TRUE(status.ok()) << status;
  }
  std::vector<Running*> batch;
  for (Running& running : together) batch.push_back(&running);
  const absl::Status status = Decode(batch);
  ASSERT_TRUE(status.ok()) << status;
  for (size_t i = 0; i < alone.size(); ++i) {
    EXPECT_EQ(together[i].tokens, alone[i].tokens) << "prompt of " << prompts[i].first;
    for (int64_t step = 0; step < kSteps; ++step) {
      EXPECT_LT(WorstError(together[i].logits[step], alone[i].logits[step]), 1e-5)
          << "prompt of " << prompts[i].first << ", step " << step;
    }
  }
}

TEST_F(DecodeBatchTest, DecodedKeysLeaveTheRestOfTheirBlockZero) {
  Running running = Start(60, 0);
  for (const absl::Span<std::byte> run : running.sequence->KvBytes(0, 64, 128)) {
    std::memset(run.data(), 0xff, run.size());
  }
  const absl::Status status = Decode({&running});
  ASSERT_TRUE(status.ok()) << status;
  const int64_t end = 60 + kSteps;
  for (const bool values : {false, true}) {
    const std::vector<float> rows = ReadKv(*running.sequence, 0, 128, values);
    const int64_t row = golden_.model->config().kv_heads * golden_.model->config().head_dim;
    int64_t nonzero_before = 0, nonzero_after = 0;
    for (size_t i = 0; i < rows.size(); ++i) {
      (static_cast<int64_t>(i) < end * row ? nonzero_before : nonzero_after) += rows[i] != 0;
    }
    EXPECT_EQ(nonzero_after, 0);
    EXPECT_GT(nonzero_before, end * row * 9 / 10);
  }
}

TEST_F(DecodeBatchTest, RefusesWhatDoesNotFit) {
  Running running = Start(60, 0);
  const auto decode = *DecodeForward::Create(*golden_.model, golden_.ledger, 2);
  const DecodeRow good = {running.sequence.get(), 5, 60};
  EXPECT_TRUE(decode->Step({good}).ok());
  struct Bad {
    std::vector<DecodeRow> rows;
    absl::string_view message;
  };
  const std::vector<Bad> cases = {
      {{}, "rows of a decode batch must be in [1, 2], got 0"},
      {{good, good, good}, "rows of a decode batch must be in [1, 2], got 3"},
      {{{running.sequence.get(), 512, 61}}, "token to decode must be in [0, 512), got 512"},
      {{{running.sequence.get(), -1, 61}}, "token to decode must be in [0, 512), got -1"},
      {{{running.sequence.get(), 5, 100}}, "position to decode must be in [0, 100) of its sequence, got 100"},
  };
  for (const Bad& bad : cases) {
    const absl::Status result = decode->Step(bad.rows);
    EXPECT_EQ(result.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(result.message(), bad.message);
  }
}

}  // namespace
}  // namespace salamander::engine
