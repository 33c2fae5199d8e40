#include "router/planner.h"

#include <algorithm>
#include <tuple>

namespace salamander::router {
namespace {

int64_t CeilDivide(int64_t a, int64_t b) { return (a + b - 1) / b; }

// How many workers get a span, and how long spans are.
struct Split {
  int64_t workers;
  int64_t span_tokens;
};

Split ChooseSplit(int64_t prompt_tokens, const PlanPolicy& policy, const std::vector<PlanCandidate>& workers) {
  int64_t longest = policy.span_tokens;
  for (const PlanCandidate& worker : workers) longest = std::min(longest, worker.max_span_tokens);
  longest = std::max(longest / kSpanAlignTokens * kSpanAlignTokens, kSpanAlignTokens);

  const int64_t shortest = std::clamp(policy.min_span_tokens, int64_t{1}, longest);
  const int64_t helpers = std::clamp(prompt_tokens / shortest, int64_t{1}, static_cast<int64_t>(workers.size()));
  const int64_t equal = CeilDivide(CeilDivide(prompt_tokens, helpers), kSpanAlignTokens) * kSpanAlignTokens;
  const int64_t span_tokens = std::min(longest, equal);
  const int64_t spans = CeilDivide(prompt_tokens, span_tokens);
  return {std::min(spans, static_cast<int64_t>(workers.size())), span_tokens};
}

}  // namespace

v1::Plan PlanSpans(int64_t prompt_tokens, const PlanPolicy& policy, std::vector<PlanCandidate> workers) {
  std::sort(workers.begin(), workers.end(), [](const PlanCandidate& a, const PlanCandidate& b) {
    return std::tie(a.load_tokens, a.name) < std::tie(b.load_tokens, b.name);
  });
  const Split split = ChooseSplit(prompt_tokens, policy, workers);

  v1::Plan plan;
  plan.set_prompt_tokens(prompt_tokens);
  plan.set_codec(policy.codec);
  for (int64_t i = 0; i < split.workers; ++i) {
    v1::PlanWorker* worker = plan.add_prefill_workers();
    worker->set_instance_id(workers[i].instance);
    worker->set_name(workers[i].name);
  }
  for (int64_t begin = 0; begin < prompt_tokens; begin += split.span_tokens) {
    v1::SpanAssignment* span = plan.add_spans();
    span->set_begin(begin);
    span->set_end(std::min(begin + split.span_tokens, prompt_tokens));
    span->set_worker(static_cast<int32_t>((plan.spans_size() - 1) % split.workers));
  }
  return plan;
}

std::vector<int64_t> TokensPerWorker(const v1::Plan& plan) {
  std::vector<int64_t> tokens(plan.prefill_workers_size(), 0);
  for (const v1::SpanAssignment& span : plan.spans()) tokens[span.worker()] += span.end() - span.begin();
  return tokens;
}

}  // namespace salamander::router
