// The forward pass on a GPU against the oracle: bf16 where the oracle has float64, so within bounds of rounding.
#include <gtest/gtest.h>

#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/engine/forward.h"
#include "kernels/cuda.h"
#include "tests/common/engine/golden_case.h"

namespace salamander::engine {
namespace {

constexpr double kLogitsError = 2e-2, kContextError = 1e-2;
// Between the same rows in other batches.
constexpr double kBatchError = 5e-3;

using Logits = std::vector<std::vector<float>>;  // of each step

class CudaGoldenTest : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    absl::StatusOr<std::unique_ptr<kernels::Ops>> ops = kernels::CreateCudaOps(0);
    if (!ops.ok() && absl::StrContains(ops.status().message(), "no GPU")) GTEST_SKIP() << ops.status().message();
    ASSERT_TRUE(ops.ok()) << ops.status();
    golden_ = std::make_unique<GoldenCase>(GetParam(), *std::move(ops));
  }

  int64_t prompt_tokens() const { return static_cast<int64_t>(golden_->prompt().size()); }
  int64_t steps() const { return static_cast<int64_t>(golden_->continuation().size()); }

  // The prompt in spans of `span_tokens`; returns the residual stream at its end.
  absl::StatusOr<std::vector<float>> Prefill(Sequence& sequence, int64_t span_tokens) {
    ASSIGN_OR_RETURN(const auto workspace, Workspace::Create(*golden_->model, golden_->ledger, span_tokens));
    ASSIGN_OR_RETURN(const auto activations, SpanActivations::Create(*golden_->model, golden_->ledger, span_tokens));
    for (int64_t begin = 0;; begin += span_tokens) {
      SpanForward span(sequence, *workspace, *activations, golden_->prompt().subspan(begin, span_tokens), begin,
                       prompt_tokens());
      while (span.phase() != SpanPhase::kFinished) RETURN_IF_ERROR(span.Step());
      if (span.end() == prompt_tokens()) return span.LastHidden();
    }
  }

  // The golden continuation on `copies` sequences at once, each step in a batch of all; the logits of the last copy.
  absl::StatusOr<Logits> Decode(int64_t copies, int64_t max_batch) {
    const int64_t vocab_size = golden_->model->config().vocab_size;
    std::vector<std::unique_ptr<Sequence>> sequences;
    std::vector<float> hidden;
    for (int64_t i = 0; i < copies; ++i) {
      sequences.push_back(golden_->NewSequence());
      ASSIGN_OR_RETURN(hidden, Prefill(*sequences.back(), 384));
    }
    ASSIGN_OR_RETURN(const auto decode, DecodeForward::Create(*golden_->model, golden_->ledger, max_batch));
    ASSIGN_OR_RETURN(absl::Span<const float> logits, decode->LogitsOf({hidden.data()}));
    Logits all = {{logits.begin(), logits.end()}};
    for (int64_t step = 0; step + 1 < steps(); ++step) {
      std::vector<DecodeRow> rows;
      for (const auto& sequence : sequences) {
        rows.push_back({sequence.get(), golden_->continuation()[step], prompt_tokens() + step});
      }
      ASSIGN_OR_RETURN(logits, decode->Step(rows));
      const absl::Span<const float> last = logits.subspan((copies - 1) * vocab_size);
      all.emplace_back(last.begin(), last.end());
    }
    return all;
  }

  void ExpectGoldenLogits(const Logits& logits) {
    const int64_t vocab_size = golden_->model->config().vocab_size;
    for (size_t step = 0; step < logits.size(); ++step) {
      EXPECT_LT(WorstError(logits[step], golden_->Floats("step_logits").subspan(step * vocab_size, vocab_size)),
                kLogitsError)
          << "step " << step;
    }
  }

  std::unique_ptr<GoldenCase> golden_;
};

TEST_P(CudaGoldenTest, PrefillLeavesKeysValuesAndStates) {
  for (const int64_t span_tokens : {128, 384, 448, 8192}) {
    SCOPED_TRACE(absl::StrCat("spans of ", span_tokens));
    const std::unique_ptr<Sequence> sequence = golden_->NewSequence();
    const auto hidden = Prefill(*sequence, span_tokens);
    ASSERT_TRUE(hidden.ok()) << hidden.status();
    for (int64_t layer = 0; layer < golden_->model->layers(); ++layer) {
      auto expect = [&](const char* what, absl::Span<const float> got) {
        EXPECT_LT(RelativeError(got, golden_->Floats(absl::StrCat(what, ".", layer))), kContextError)
            << what << " of layer " << layer;
      };
      if (golden_->model->is_sparse(layer)) {
        expect("key", ReadKv(*sequence, layer, prompt_tokens(), false));
        expect("value", ReadKv(*sequence, layer, prompt_tokens(), true));
      } else {
        expect("state", ReadState(*sequence, layer));
      }
    }
    const auto decode = DecodeForward::Create(*golden_->model, golden_->ledger, 1);
    ASSERT_TRUE(decode.ok()) << decode.status();
    const auto logits = (*decode)->LogitsOf({hidden->data()});
    ASSERT_TRUE(logits.ok()) << logits.status();
    ExpectGoldenLogits({{logits->begin(), logits->end()}});
  }
}

// One row, step by step without graphs; then as graphs, alone and three rows in a batch filled up to four.
TEST_P(CudaGoldenTest, DecodeStepsAloneRepeatedAndPadded) {
  golden_->ops->SetTiming(true);  // Nothing is replayed.
  const absl::StatusOr<Logits> eager = Decode(1, 1);
  ASSERT_TRUE(eager.ok()) << eager.status();
  ExpectGoldenLogits(*eager);
  golden_->ops->SetTiming(false);
  for (const int64_t copies : {1, 3}) {
    SCOPED_TRACE(absl::StrCat(copies, " rows"));
    const absl::StatusOr<Logits> repeated = Decode(copies, 4);
    ASSERT_TRUE(repeated.ok()) << repeated.status();
    ExpectGoldenLogits(*repeated);
    for (size_t step = 0; step < repeated->size(); ++step) {
      EXPECT_LT(WorstError((*repeated)[step], (*eager)[step]), kBatchError) << "step " << step;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, CudaGoldenTest, testing::ValuesIn(kGoldenNames),
                         [](const auto& instance) { return std::string(instance.param); });

}  // namespace
}  // namespace salamander::engine
