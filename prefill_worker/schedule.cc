#include "prefill_worker/schedule.h"

#include <algorithm>
#include <tuple>
#include <utility>

namespace salamander::prefill {

using engine::SpanPhase;

RequestSchedule::RequestSchedule(const v1::Plan& plan, stream::LayerKinds sparse, int worker)
    : sparse_(std::move(sparse)), own_position_(plan.spans_size(), -1), present_(sparse_.size(), 0) {
  for (int32_t i = 0; i < plan.spans_size(); ++i) {
    if (plan.spans(i).worker() != worker) continue;
    own_position_[i] = static_cast<int>(spans_.size());
    spans_.push_back({.index = i});
  }
}

std::optional<size_t> RequestSchedule::Next(const HasItem& has, bool may_start) {
  for (size_t position = first_unfinished_; position < next_to_start_; ++position) {
    const OwnSpan& span = spans_[position];
    if (span.finished()) continue;
    if (span.phase == SpanPhase::kProject || NeedsMet(span, span.layer, has)) return position;
  }
  if (may_start && next_to_start_ < spans_.size() && NeedsMet(spans_[next_to_start_], 0, has)) return next_to_start_;
  return std::nullopt;
}

void RequestSchedule::Advance(size_t position) {
  OwnSpan& span = spans_[position];
  if (!span.started) {
    span.started = true;
    ++next_to_start_;
    ++active_;
  }
  if (span.phase == SpanPhase::kProject) {
    span.phase = SpanPhase::kMix;
    return;
  }
  ++span.layer;
  span.phase = span.layer == static_cast<int64_t>(sparse_.size()) ? SpanPhase::kFinished : SpanPhase::kProject;
  if (!span.finished()) return;
  --active_;
  while (first_unfinished_ < spans_.size() && spans_[first_unfinished_].finished()) ++first_unfinished_;
}

bool RequestSchedule::NeedsMet(const OwnSpan& span, int64_t layer, const HasItem& has) {
  if (span.index == 0) return true;
  if (!sparse_[layer]) return Present(span.index - 1, layer, has);
  int32_t& present = present_[layer];
  while (present < span.index && Present(present, layer, has)) ++present;
  return present >= span.index;
}

bool RequestSchedule::MixedHere(int32_t index, int64_t layer) const {
  return spans_[own_position_[index]].layer > layer;
}

bool RequestSchedule::Present(int32_t index, int64_t layer, const HasItem& has) const {
  if (own_position_[index] >= 0) return MixedHere(index, layer);
  return has({.kind = sparse_[layer] ? v1::ITEM_KIND_KEYS_VALUES : v1::ITEM_KIND_STATE,
              .layer = static_cast<int32_t>(layer),
              .span = index});
}

int PickCandidate(absl::Span<const Candidate> candidates) {
  const auto rank = [](const Candidate& c) { return std::tuple(-int64_t{c.priority}, c.deadline, c.order); };
  const auto best = std::min_element(candidates.begin(), candidates.end(),
                                     [&](const Candidate& a, const Candidate& b) { return rank(a) < rank(b); });
  return best == candidates.end() ? -1 : static_cast<int>(best - candidates.begin());
}

int SlotsPerRequest(int slots) { return std::max(1, slots - 1); }

}  // namespace salamander::prefill
