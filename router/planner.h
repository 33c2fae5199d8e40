// How a prompt is split: a pure function from its length and the workers' load to a plan.
//
// Spans begin at multiples of 128 and are as long as allowed, but for a prompt too short to give each worker such a
// span: it is cut into equal ones so that all can help, down to `min_span_tokens`. Span i goes to worker i mod W, which
// makes neighbouring spans run at the same time, one layer's hand-off apart (docs/architecture.md, "Spans").
#ifndef SALAMANDER_ROUTER_PLANNER_H_
#define SALAMANDER_ROUTER_PLANNER_H_

#include <cstdint>
#include <string>
#include <vector>

#include "common/base/ids.h"
#include "salamander/v1/stream.pb.h"

namespace salamander::router {

// What all span boundaries but the prompt's end are multiples of.
inline constexpr int64_t kSpanAlignTokens = 128;

struct PlanCandidate {
  InstanceId instance = 0;
  std::string name;
  int64_t load_tokens = 0;      // of spans not finished
  int64_t max_span_tokens = 0;  // at least 128
};

struct PlanPolicy {
  int64_t span_tokens = 0;      // longest span; a multiple of 128
  int64_t min_span_tokens = 0;  // shortest worth a worker of its own; at most span_tokens
  v1::Codec codec = v1::CODEC_LOSSLESS;
};

// Spans cover [0, prompt_tokens) in order. Prefill workers are listed least loaded first (then by name); all that are
// listed have at least one span. `workers` is not empty, prompt_tokens ≥ 1; the decode worker is left to the caller.
v1::Plan PlanSpans(int64_t prompt_tokens, const PlanPolicy& policy, std::vector<PlanCandidate> workers);

// Tokens of each of the plan's prefill workers, by its index.
std::vector<int64_t> TokensPerWorker(const v1::Plan& plan);

}  // namespace salamander::router

#endif  // SALAMANDER_ROUTER_PLANNER_H_
