#include "common/stream/manifest.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace salamander::stream {
namespace {

// Spans begin on blocks of the sparse layers' coarse tier, so that no tier window's tokens are split three ways.
constexpr int64_t kSpanAlignment = 128;

// The last span of every prefill worker, −1 for a worker without one.
std::vector<int> LastSpans(const v1::Plan& plan) {
  std::vector<int> last(plan.prefill_workers_size(), -1);
  for (int span = 0; span < plan.spans_size(); ++span) last[plan.spans(span).worker()] = span;
  return last;
}

// True if `worker` is a destination of the item; `last_span` is that worker's.
bool Needs(const v1::Plan& plan, const ItemId& id, int worker, int last_span) {
  const bool last = id.span + 1 == plan.spans_size();
  const int maker = plan.spans(id.span).worker();
  switch (id.kind) {
    case v1::ITEM_KIND_KEYS_VALUES:
      return worker == kDecodeWorker || (worker != maker && last_span > id.span);
    case v1::ITEM_KIND_STATE:
      if (last) return worker == kDecodeWorker;
      return worker != maker && plan.spans(id.span + 1).worker() == worker;
    case v1::ITEM_KIND_HIDDEN:
      return last && worker == kDecodeWorker;
    default:
      return false;
  }
}

}  // namespace

absl::Status CheckPlan(const v1::Plan& plan) {
  if (plan.prompt_tokens() <= 0) {
    return absl::InvalidArgumentError(absl::StrCat("plan: prompt_tokens must be positive, got ", plan.prompt_tokens()));
  }
  int64_t end = 0;
  for (int i = 0; i < plan.spans_size(); ++i) {
    const v1::SpanAssignment& span = plan.spans(i);
    if (span.begin() != end) {
      return absl::InvalidArgumentError(absl::StrCat("plan: span ", i, " must begin at ", end, ", got ", span.begin()));
    }
    if (span.begin() % kSpanAlignment != 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("plan: span ", i, " must begin at a multiple of ", kSpanAlignment, ", got ", span.begin()));
    }
    if (span.end() <= span.begin() || span.end() > plan.prompt_tokens()) {
      return absl::InvalidArgumentError(absl::StrCat("plan: span ", i, " must end in (", span.begin(), ", ",
                                                     plan.prompt_tokens(), "], got ", span.end()));
    }
    if (span.worker() < 0 || span.worker() >= plan.prefill_workers_size()) {
      return absl::InvalidArgumentError(absl::StrCat("plan: worker of span ", i, " must be in [0, ",
                                                     plan.prefill_workers_size(), "), got ", span.worker()));
    }
    end = span.end();
  }
  if (end != plan.prompt_tokens()) {
    return absl::InvalidArgumentError(
        absl::StrCat("plan: spans must end at prompt_tokens ", plan.prompt_tokens(), ", got ", end));
  }
  return absl::OkStatus();
}

std::vector<int> Destinations(const v1::Plan& plan, const ItemId& id) {
  const std::vector<int> last_spans = LastSpans(plan);
  std::vector<int> destinations;
  for (int worker = 0; worker < plan.prefill_workers_size(); ++worker) {
    if (Needs(plan, id, worker, last_spans[worker])) destinations.push_back(worker);
  }
  if (Needs(plan, id, kDecodeWorker, -1)) destinations.push_back(kDecodeWorker);
  return destinations;
}

std::vector<ItemId> ExpectedItems(const v1::Plan& plan, const LayerKinds& sparse, int worker) {
  const int last_span = worker == kDecodeWorker ? -1 : LastSpans(plan)[worker];
  std::vector<ItemId> expected;
  for (int32_t span = 0; span < plan.spans_size(); ++span) {
    for (size_t layer = 0; layer < sparse.size(); ++layer) {
      const ItemId id{sparse[layer] ? v1::ITEM_KIND_KEYS_VALUES : v1::ITEM_KIND_STATE, static_cast<int32_t>(layer),
                      span};
      if (Needs(plan, id, worker, last_span)) expected.push_back(id);
    }
    const ItemId hidden{v1::ITEM_KIND_HIDDEN, 0, span};
    if (Needs(plan, hidden, worker, last_span)) expected.push_back(hidden);
  }
  return expected;
}

}  // namespace salamander::stream
