// The forward pass against the oracle: every golden case, instruction set and way to split the prompt.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <string>
#include <tuple>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/engine/forward.h"
#include "common/engine/local_session.h"
#include "tests/common/engine/golden_case.h"

namespace salamander::engine {
namespace {

// What one prefill left, and what it showed on the way.
struct Prefilled {
  std::unique_ptr<Sequence> sequence;
  std::vector<float> hidden;                              // of the last layer
  std::map<int64_t, std::vector<float>> hidden_of_layer;  // but for the last
  std::map<int64_t, std::vector<int32_t>>
      blocks_of_layer;  // [prompt rows, kv heads, top]; the last row in the last layer
};

class GoldenTest : public testing::TestWithParam<std::tuple<const char*, kernels::CpuIsa>> {
 protected:
  GoldenTest() : golden_(std::get<0>(GetParam()), std::get<1>(GetParam())) {}

  absl::StatusOr<Prefilled> Prefill(absl::Span<const int32_t> prompt, int64_t span_tokens) {
    const auto prompt_tokens = static_cast<int64_t>(prompt.size());
    ASSIGN_OR_RETURN(const auto workspace, Workspace::Create(*golden_.model, golden_.ledger, span_tokens));
    ASSIGN_OR_RETURN(const auto activations, SpanActivations::Create(*golden_.model, golden_.ledger, span_tokens));
    Prefilled result;
    result.sequence = golden_.NewSequence();
    for (int64_t begin = 0; begin < prompt_tokens; begin += span_tokens) {
      SpanForward span(*result.sequence, *workspace, *activations, prompt.subspan(begin, span_tokens), begin,
                       prompt_tokens);
      while (span.phase() != SpanPhase::kFinished) {
        const SpanPhase phase = span.phase();
        const int64_t layer = span.layer();
        RETURN_IF_ERROR(span.Step());
        if (phase == SpanPhase::kMix) RETURN_IF_ERROR(Capture(span, layer, result));
      }
      if (span.end() == prompt_tokens) {
        ASSIGN_OR_RETURN(result.hidden, span.LastHidden());
      }
    }
    return result;
  }

  absl::Status Capture(const SpanForward& span, int64_t layer, Prefilled& result) {
    if (layer + 1 < golden_.model->layers()) {
      ASSIGN_OR_RETURN(result.hidden_of_layer[layer], span.LastHidden());
    }
    if (golden_.model->is_sparse(layer) && golden_.golden->tensors().contains(absl::StrCat("blocks.", layer))) {
      ASSIGN_OR_RETURN(const std::vector<int32_t> blocks, span.LastBlocks());
      std::vector<int32_t>& all = result.blocks_of_layer[layer];
      all.insert(all.end(), blocks.begin(), blocks.end());
    }
    return absl::OkStatus();
  }

  GoldenCase golden_;
};

constexpr int64_t kSpanTokens[] = {128, 384, 8192};

TEST_P(GoldenTest, GreedyTokensOfLocalSession) {
  for (const int64_t span_tokens : kSpanTokens) {
    const auto session = LocalSession::Create(golden_.model.get(), &golden_.ledger, span_tokens);
    ASSERT_TRUE(session.ok()) << session.status();
    GenerationOptions options;
    options.sampling.temperature = 0;
    options.max_tokens = static_cast<int64_t>(golden_.continuation().size());
    options.ignore_eos = true;
    std::vector<int32_t> tokens;
    const auto timing = (*session)->Generate(golden_.prompt(), options, nullptr, nullptr, [&](const GeneratedToken& t) {
      tokens.push_back(t.token);
      return true;
    });
    ASSERT_TRUE(timing.ok()) << timing.status();
    EXPECT_THAT(tokens, testing::ElementsAreArray(golden_.continuation())) << "spans of " << span_tokens;
  }
}

TEST_P(GoldenTest, StatesKeysValuesAndHidden) {
  const auto prompt_tokens = static_cast<int64_t>(golden_.prompt().size());
  for (const int64_t span_tokens : kSpanTokens) {
    SCOPED_TRACE(absl::StrCat("spans of ", span_tokens));
    const absl::StatusOr<Prefilled> prefilled = Prefill(golden_.prompt(), span_tokens);
    ASSERT_TRUE(prefilled.ok()) << prefilled.status();
    Sequence& sequence = *prefilled->sequence;
    const int64_t layers = golden_.model->layers();
    for (int64_t layer = 0; layer < layers; ++layer) {
      SCOPED_TRACE(absl::StrCat("layer ", layer));
      const auto& hidden = layer + 1 == layers ? prefilled->hidden : prefilled->hidden_of_layer.at(layer);
      EXPECT_LT(WorstError(hidden, golden_.Floats(absl::StrCat("hidden_last.", layer))), 1e-4);
      if (!golden_.model->is_sparse(layer)) {
        const absl::Span<const float> state(sequence.state(layer), golden_.model->state_bytes() / sizeof(float));
        EXPECT_LT(WorstError(state, golden_.Floats(absl::StrCat("state.", layer))), 1e-4);
        continue;
      }
      EXPECT_LT(WorstError(ReadKv(sequence, layer, prompt_tokens, false), golden_.Floats(absl::StrCat("key.", layer))),
                1e-4);
      EXPECT_LT(WorstError(ReadKv(sequence, layer, prompt_tokens, true), golden_.Floats(absl::StrCat("value.", layer))),
                1e-4);
    }
  }
}

// The cases were made with gaps at the cut far over rounding, so the choice must agree exactly.
TEST_P(GoldenTest, ChosenBlocks) {
  const int64_t heads = golden_.model->config().kv_heads;
  const int64_t top = golden_.model->sparse_shape().top_blocks;
  for (const int64_t span_tokens : kSpanTokens) {
    const absl::StatusOr<Prefilled> prefilled = Prefill(golden_.prompt(), span_tokens);
    ASSERT_TRUE(prefilled.ok()) << prefilled.status();
    for (const auto& [layer, blocks] : prefilled->blocks_of_layer) {
      // In the last layer only the prompt's last token attends.
      const bool last_layer = layer + 1 == golden_.model->layers();
      const auto rows = static_cast<int64_t>(blocks.size()) / (heads * top);
      const absl::Span<const int32_t> positions = golden_.Ints(absl::StrCat("block_positions.", layer));
      const absl::Span<const int32_t> want = golden_.Ints(absl::StrCat("blocks.", layer));
      const int64_t width = static_cast<int64_t>(want.size() / positions.size()) / heads;
      for (size_t i = 0; i < positions.size(); ++i) {
        const int64_t row =
            last_layer ? positions[i] - static_cast<int64_t>(golden_.prompt().size()) + rows : positions[i];
        if (last_layer && row != rows - 1) continue;
        for (int64_t head = 0; head < heads; ++head) {
          std::vector<int32_t> padded(want.begin() + (i * heads + head) * width,
                                      want.begin() + (i * heads + head + 1) * width);
          padded.resize(top, -1);
          EXPECT_THAT(absl::MakeConstSpan(blocks.data() + (row * heads + head) * top, top),
                      testing::ElementsAreArray(padded))
              << "layer " << layer << ", position " << positions[i] << ", head " << head << ", spans of "
              << span_tokens;
        }
      }
    }
  }
}

TEST_P(GoldenTest, StepLogits) {
  const auto decode = DecodeForward::Create(*golden_.model, golden_.ledger, 1);
  ASSERT_TRUE(decode.ok()) << decode.status();
  const int64_t vocab_size = golden_.model->config().vocab_size;
  const absl::Span<const float> want = golden_.Floats("step_logits");
  for (const int64_t span_tokens : kSpanTokens) {
    const absl::StatusOr<Prefilled> prefilled = Prefill(golden_.prompt(), span_tokens);
    ASSERT_TRUE(prefilled.ok()) << prefilled.status();
    absl::StatusOr<absl::Span<const float>> logits = (*decode)->LogitsOf({prefilled->hidden.data()});
    for (size_t step = 0; step < golden_.continuation().size(); ++step) {
      ASSERT_TRUE(logits.ok()) << logits.status();
      EXPECT_LT(WorstError(*logits, want.subspan(step * vocab_size, vocab_size)), 1e-4)
          << "step " << step << ", spans of " << span_tokens;
      if (step + 1 == golden_.continuation().size()) break;
      const auto position = static_cast<int64_t>(golden_.prompt().size() + step);
      logits = (*decode)->Step({{prefilled->sequence.get(), golden_.continuation()[step], position}});
    }
  }
}

// Each of the prompt's last positions as the end of a shorter prompt, which is in the same regime.
TEST_P(GoldenTest, PromptLogits) {
  const auto decode = DecodeForward::Create(*golden_.model, golden_.ledger, 1);
  ASSERT_TRUE(decode.ok()) << decode.status();
  const int64_t vocab_size = golden_.model->config().vocab_size;
  const absl::Span<const float> want = golden_.Floats("prompt_logits_last16");
  for (int64_t i = 0; i < 16; ++i) {
    const absl::StatusOr<Prefilled> prefilled =
        Prefill(golden_.prompt().subspan(0, golden_.prompt().size() - 15 + i), 8192);
    ASSERT_TRUE(prefilled.ok()) << prefilled.status();
    const auto logits = (*decode)->LogitsOf({prefilled->hidden.data()});
    ASSERT_TRUE(logits.ok()) << logits.status();
    EXPECT_LT(WorstError(*logits, want.subspan(i * vocab_size, vocab_size)), 1e-4) << "row " << i;
  }
}

INSTANTIATE_TEST_SUITE_P(All, GoldenTest,
                         testing::Combine(testing::ValuesIn(kGoldenNames), testing::ValuesIn(AvailableIsas())),
                         [](const auto& instance) {
                           return absl::StrCat(std::get<0>(instance.param), "_",
                                               kernels::CpuIsaName(std::get<1>(instance.param)));
                         });

}  // namespace
}  // namespace salamander::engine
