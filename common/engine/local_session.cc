#include "common/engine/local_session.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/clock.h"
#include "common/base/status_macros.h"

namespace salamander::engine {
namespace {

constexpr int64_t kSpanGranule = 128;

absl::Status CheckRequest(const Model& model, absl::Span<const int32_t> prompt, const GenerationOptions& options,
                          const model::Tokenizer* tokenizer) {
  if (prompt.empty()) return absl::InvalidArgumentError("prompt must have ≥ 1 tokens, got 0");
  if (options.max_tokens < 1) {
    return absl::InvalidArgumentError(absl::StrCat("max_tokens must be ≥ 1, got ", options.max_tokens));
  }
  if (tokenizer == nullptr && !options.stop_texts.empty()) {
    return absl::InvalidArgumentError("stop texts need a checkpoint with a tokenizer");
  }
  return CheckSamplingParams(options.sampling, model.config().vocab_size);
}

absl::Status Cancelled() { return absl::CancelledError("cancelled by the caller"); }

}  // namespace

absl::StatusOr<std::unique_ptr<LocalSession>> LocalSession::Create(const Model* model, MemoryLedger* ledger,
                                                                   int64_t span_tokens) {
  if (span_tokens < kSpanGranule || span_tokens % kSpanGranule != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("span_tokens must be a positive multiple of ", kSpanGranule, ", got ", span_tokens));
  }
  std::unique_ptr<LocalSession> session(new LocalSession());
  session->model_ = model;
  session->ledger_ = ledger;
  session->span_tokens_ = span_tokens;
  ASSIGN_OR_RETURN(session->workspace_, Workspace::Create(*model, *ledger, span_tokens));
  ASSIGN_OR_RETURN(session->activations_, SpanActivations::Create(*model, *ledger, span_tokens));
  ASSIGN_OR_RETURN(session->decode_, DecodeForward::Create(*model, *ledger, 1));
  return session;
}

absl::StatusOr<std::vector<float>> LocalSession::Prefill(Sequence& sequence, absl::Span<const int32_t> prompt,
                                                         const std::function<bool(int64_t)>& on_progress) {
  const auto prompt_tokens = static_cast<int64_t>(prompt.size());
  for (int64_t begin = 0;; begin += span_tokens_) {
    SpanForward span(sequence, *workspace_, *activations_, prompt.subspan(begin, span_tokens_), begin, prompt_tokens);
    while (span.phase() != SpanPhase::kFinished) RETURN_IF_ERROR(span.Step());
    RETURN_IF_ERROR(model_->ops().Synchronize());
    if (on_progress && !on_progress(span.end())) return Cancelled();
    if (span.end() == prompt_tokens) return span.LastHidden();
  }
}

absl::StatusOr<LocalTiming> LocalSession::Generate(absl::Span<const int32_t> prompt, const GenerationOptions& options,
                                                   const model::Tokenizer* tokenizer,
                                                   const std::function<bool(int64_t)>& on_progress,
                                                   const std::function<bool(const GeneratedToken&)>& on_token) {
  RETURN_IF_ERROR(CheckRequest(*model_, prompt, options, tokenizer));
  const auto prompt_tokens = static_cast<int64_t>(prompt.size());
  const double start = RealClock().Now();
  ASSIGN_OR_RETURN(const std::unique_ptr<Sequence> sequence,
                   Sequence::Create(*model_, *ledger_, prompt_tokens + options.max_tokens));
  ASSIGN_OR_RETURN(const std::vector<float> hidden, Prefill(*sequence, prompt, on_progress));
  const double prefilled = RealClock().Now();

  Generation generation(options, tokenizer, model_->config().eos_token_ids, prompt_tokens, prompt);
  auto next = [&]() -> absl::StatusOr<GeneratedToken> {
    DrawRequests requests;
    generation.Ask(requests);
    ASSIGN_OR_RETURN(const absl::Span<const Draw> draws, decode_->Sample(requests));
    return generation.Take(draws[0]);
  };
  RETURN_IF_ERROR(decode_->FirstStep({hidden.data()}));
  ASSIGN_OR_RETURN(GeneratedToken token, next());
  const double first = RealClock().Now();
  while (on_token(token) && token.reason == StopReason::kNone) {
    const DecodeRow row = {sequence.get(), token.token, prompt_tokens + generation.count() - 1};
    RETURN_IF_ERROR(decode_->Step({row}));
    ASSIGN_OR_RETURN(token, next());
  }
  if (token.reason == StopReason::kNone) return Cancelled();
  return LocalTiming{prefilled - start, first - prefilled, RealClock().Now() - first};
}

}  // namespace salamander::engine
