#include "tests/common/engine/golden_run.h"

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/engine/forward.h"

namespace salamander::engine {
namespace {

constexpr int64_t kDecodeSpan = 384;  // of the prompt before a continuation

int64_t PromptTokens(const GoldenCase& golden) { return static_cast<int64_t>(golden.prompt().size()); }

// Returns the residual stream at the prompt's end.
absl::StatusOr<std::vector<float>> Prefill(GoldenCase& golden, Sequence& sequence, int64_t span_tokens) {
  ASSIGN_OR_RETURN(const auto workspace, Workspace::Create(*golden.model, golden.ledger, span_tokens));
  ASSIGN_OR_RETURN(const auto activations, SpanActivations::Create(*golden.model, golden.ledger, span_tokens));
  for (int64_t begin = 0;; begin += span_tokens) {
    SpanForward span(sequence, *workspace, *activations, golden.prompt().subspan(begin, span_tokens), begin,
                     PromptTokens(golden));
    while (span.phase() != SpanPhase::kFinished) RETURN_IF_ERROR(span.Step());
    if (span.end() == PromptTokens(golden)) return span.LastHidden();
  }
}

}  // namespace

TappedCase::TappedCase(const std::string& name, std::unique_ptr<kernels::Ops> device) {
  auto tapped = std::make_unique<TappedOps>(std::move(device));
  ops = tapped.get();
  golden = std::make_unique<GoldenCase>(name, std::move(tapped));
}

Outcome GoldenPrefill(const GoldenCase& golden) {
  Outcome outcome;
  auto add = [&](const char* what, int64_t layer) {
    const std::string name = absl::StrCat(what, ".", layer);
    const absl::Span<const float> values = golden.Floats(name);
    outcome.context[name] = {values.begin(), values.end()};
  };
  for (int64_t layer = 0; layer < golden.model->layers(); ++layer) {
    if (golden.model->is_sparse(layer)) {
      add("key", layer);
      add("value", layer);
    } else {
      add("state", layer);
    }
  }
  outcome.logits = {GoldenDecode(golden)[0]};
  return outcome;
}

Logits GoldenDecode(const GoldenCase& golden) {
  const int64_t vocab_size = golden.model->config().vocab_size;
  const absl::Span<const float> all = golden.Floats("step_logits");
  Logits logits;
  for (size_t at = 0; at < all.size(); at += vocab_size) {
    logits.emplace_back(all.begin() + at, all.begin() + at + vocab_size);
  }
  return logits;
}

absl::StatusOr<Outcome> RunPrefill(GoldenCase& golden, int64_t span_tokens) {
  const std::unique_ptr<Sequence> sequence = golden.NewSequence();
  ASSIGN_OR_RETURN(const std::vector<float> hidden, Prefill(golden, *sequence, span_tokens));
  Outcome outcome;
  for (int64_t layer = 0; layer < golden.model->layers(); ++layer) {
    if (golden.model->is_sparse(layer)) {
      outcome.context[absl::StrCat("key.", layer)] = ReadKv(*sequence, layer, PromptTokens(golden), false);
      outcome.context[absl::StrCat("value.", layer)] = ReadKv(*sequence, layer, PromptTokens(golden), true);
    } else {
      outcome.context[absl::StrCat("state.", layer)] = ReadState(*sequence, layer);
    }
  }
  ASSIGN_OR_RETURN(const auto decode, DecodeForward::Create(*golden.model, golden.ledger, 1));
  ASSIGN_OR_RETURN(std::vector<float> logits, LogitsAfter(*decode, decode->FirstStep({hidden.data()})));
  outcome.logits = {std::move(logits)};
  return outcome;
}

absl::StatusOr<Logits> RunDecode(GoldenCase& golden, int64_t copies, int64_t max_batch) {
  const int64_t vocab_size = golden.model->config().vocab_size;
  std::vector<std::unique_ptr<Sequence>> sequences;
  std::vector<float> hidden;
  for (int64_t i = 0; i < copies; ++i) {
    sequences.push_back(golden.NewSequence());
    ASSIGN_OR_RETURN(hidden, Prefill(golden, *sequences.back(), kDecodeSpan));
  }
  ASSIGN_OR_RETURN(const auto decode, DecodeForward::Create(*golden.model, golden.ledger, max_batch));
  ASSIGN_OR_RETURN(std::vector<float> logits, LogitsAfter(*decode, decode->FirstStep({hidden.data()})));
  Logits all = {logits};
  for (size_t step = 0; step + 1 < golden.continuation().size(); ++step) {
    std::vector<DecodeRow> rows;
    for (const auto& sequence : sequences) {
      rows.push_back({sequence.get(), golden.continuation()[step], PromptTokens(golden) + static_cast<int64_t>(step)});
    }
    ASSIGN_OR_RETURN(logits, LogitsAfter(*decode, decode->Step(rows)));
    all.emplace_back(logits.begin() + (copies - 1) * vocab_size, logits.end());
  }
  return all;
}

}  // namespace salamander::engine
