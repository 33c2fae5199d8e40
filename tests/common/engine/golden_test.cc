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

  // Spans of `span_tokens` from `begin` to the prompt's end, on top of what `result.sequence` holds already.
  absl::Status Prefill(absl::Span<const int32_t> prompt, int64_t begin, int64_t span_tokens, Prefilled& result) {
    const auto prompt_tokens = static_cast<int64_t>(prompt.size());
    ASSIGN_OR_RETURN(const auto workspace, Workspace::Create(*golden_.model, golden_.ledger, span_tokens));
    ASSIGN_OR_RETURN(const auto activations, SpanActivations::Create(*golden_.model, golden_.ledger, span_tokens));
    for (; begin < prompt_tokens; begin += span_tokens) {
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
    return absl::OkStatus();
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

  void ExpectStatesKeysValues(Sequence& sequence) {
    const auto prompt_tokens = static_cast<int64_t>(golden_.prompt().size());
    for (int64_t layer = 0; layer < golden_.model->layers(); ++layer) {
      auto error = [&](const char* what, absl::Span<const float> got) {
        return WorstError(got, golden_.Floats(absl::StrCat(what, ".", layer)));
      };
      if (golden_.model->is_sparse(layer)) {
        EXPECT_LT(error("key", ReadKv(sequence, layer, prompt_tokens, false)), 1e-4) << "layer " << layer;
        EXPECT_LT(error("value", ReadKv(sequence, layer, prompt_tokens, true)), 1e-4) << "layer " << layer;
      } else {
        EXPECT_LT(error("state", {sequence.state(layer), golden_.model->state_bytes() / sizeof(float)}), 1e-4)
            << "layer " << layer;
      }
    }
  }

  void ExpectHidden(const Prefilled& prefilled) {
    for (int64_t layer = 0; layer < golden_.model->layers(); ++layer) {
      const bool last = layer + 1 == golden_.model->layers();
      const std::vector<float>& hidden = last ? prefilled.hidden : prefilled.hidden_of_layer.at(layer);
      EXPECT_LT(WorstError(hidden, golden_.Floats(absl::StrCat("hidden_last.", layer))), 1e-4) << "layer " << layer;
    }
  }

  // The cases were made with gaps at the cut far over rounding, so the choice must agree exactly.
  void ExpectBlocks(const Prefilled& prefilled) {
    const int64_t heads = golden_.model->config().kv_heads;
    const int64_t top = golden_.model->sparse_shape().top_blocks;
    for (const auto& [layer, blocks] : prefilled.blocks_of_layer) {
      // In the last layer only the prompt's last token attends.
      const bool last_layer = layer + 1 == golden_.model->layers();
      const auto prompt_tokens = static_cast<int64_t>(golden_.prompt().size());
      const auto rows = static_cast<int64_t>(blocks.size()) / (heads * top);
      const absl::Span<const int32_t> positions = golden_.Ints(absl::StrCat("block_positions.", layer));
      const absl::Span<const int32_t> want = golden_.Ints(absl::StrCat("blocks.", layer));
      const int64_t width = static_cast<int64_t>(want.size() / positions.size()) / heads;
      for (size_t i = 0; i < positions.size(); ++i) {
        if (last_layer && positions[i] + 1 != prompt_tokens) continue;
        const int64_t row = positions[i] - prompt_tokens + rows;
        for (int64_t head = 0; head < heads; ++head) {
          const int32_t* chosen = want.data() + (i * heads + head) * width;
          std::vector<int32_t> padded(chosen, chosen + width);
          padded.resize(top, -1);
          EXPECT_THAT(absl::MakeConstSpan(blocks.data() + (row * heads + head) * top, top),
                      testing::ElementsAreArray(padded))
              << "layer " << layer << ", position " << positions[i] << ", head " << head;
        }
      }
    }
  }

  void ExpectStepLogits(const Prefilled& prefilled) {
    const auto decode = DecodeForward::Create(*golden_.model, golden_.ledger, 1);
    ASSERT_TRUE(decode.ok()) << decode.status();
    const int64_t vocab_size = golden_.model->config().vocab_size;
    absl::StatusOr<std::vector<float>> logits = LogitsAfter(**decode, (*decode)->FirstStep({prefilled.hidden.data()}));
    for (size_t step = 0; step < golden_.continuation().size(); ++step) {
      ASSERT_TRUE(logits.ok()) << logits.status();
      EXPECT_LT(WorstError(*logits, golden_.Floats("step_logits").subspan(step * vocab_size, vocab_size)), 1e-4)
          << "step " << step;
      const auto position = static_cast<int64_t>(golden_.prompt().size() + step);
      logits =
          LogitsAfter(**decode, (*decode)->Step({{prefilled.sequence.get(), golden_.continuation()[step], position}}));
    }
  }

  GoldenCase golden_;
};

// How spans meet is the engine's doing, so only the best instruction set tries every length.
std::vector<int64_t> OnBestIsa(kernels::CpuIsa isa, std::vector<int64_t> span_lengths) {
  return isa == kernels::DetectCpuIsa() ? span_lengths : std::vector<int64_t>{384};
}

TEST_P(GoldenTest, GreedyTokensOfLocalSession) {
  for (const int64_t span_tokens : OnBestIsa(std::get<1>(GetParam()), {128, 384, 8192})) {
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

TEST_P(GoldenTest, EverythingThatThePrefillLeaves) {
  // The first span of 448 holds blocks enough to choose among, but fewer than dense_len tokens: its prompt decides.
  for (const int64_t span_tokens : OnBestIsa(std::get<1>(GetParam()), {128, 384, 448, 8192})) {
    SCOPED_TRACE(absl::StrCat("spans of ", span_tokens));
    Prefilled prefilled{golden_.NewSequence()};
    const absl::Status status = Prefill(golden_.prompt(), 0, span_tokens, prefilled);
    ASSERT_TRUE(status.ok()) << status;
    ExpectStatesKeysValues(*prefilled.sequence);
    ExpectHidden(prefilled);
    ExpectBlocks(prefilled);
    ExpectStepLogits(prefilled);
  }
}

// Each of the prompt's last positions as the end of a shorter prompt, which is in the same regime. What lies before
// the span they are in is computed once.
TEST_P(GoldenTest, PromptLogits) {
  const auto decode = DecodeForward::Create(*golden_.model, golden_.ledger, 1);
  ASSERT_TRUE(decode.ok()) << decode.status();
  const auto prompt_tokens = static_cast<int64_t>(golden_.prompt().size());
  const int64_t begin = (prompt_tokens - 16) / 128 * 128;
  const int64_t vocab_size = golden_.model->config().vocab_size;
  Prefilled before{golden_.NewSequence()};
  absl::Status status = Prefill(golden_.prompt().subspan(0, begin), 0, begin, before);
  ASSERT_TRUE(status.ok()) << status;
  for (int64_t i = 0; i < 16; ++i) {
    Prefilled prefilled{golden_.NewSequence()};
    CopyTokens(*before.sequence, *prefilled.sequence, begin);
    status = Prefill(golden_.prompt().subspan(0, prompt_tokens - 15 + i), begin, 256, prefilled);
    ASSERT_TRUE(status.ok()) << status;
    const auto logits = LogitsAfter(**decode, (*decode)->FirstStep({prefilled.hidden.data()}));
    ASSERT_TRUE(logits.ok()) << logits.status();
    EXPECT_LT(WorstError(*logits, golden_.Floats("prompt_logits_last16").subspan(i * vocab_size, vocab_size)), 1e-4)
        << "row " << i;
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
