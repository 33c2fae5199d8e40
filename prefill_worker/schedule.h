// Which span a prefill worker works on next. Pure: no clock, no engine, no streams; tests run whole clusters on it.
//
// Per layer a span has two phases (engine/forward.h). kProject needs nothing. kMix needs
//   sparse layer     the keys and values of every earlier span at that layer
//   lightning layer  the state after the span before it at that layer
// where "what this worker made itself" counts as present once the earlier span has mixed that layer, and what others
// made once it was received and verified.
//
// A started span holds one of the worker's few activation slots until it is finished. **A span starts only when the
// needs of its first kMix are met already** (or it is span 0), and the spans of one request start in order. That makes
// deadlock impossible, whatever the numbers of workers, requests and slots, and without any word between workers:
//
//   1. If span i of a request holds a slot, spans 0 … i-1 have all started, on whichever worker. The needs of layer 0
//      are met only if span i-1 (lightning; and so by induction all before it) or all of them (sparse) have passed at
//      least their first phase, which takes a slot.
//   2. So take any occupied slot, and of its request the earliest unfinished span. It has started (1), every span
//   before
//      it is finished, and what they published arrives or the request fails: its needs are met, it can be stepped.
//   3. So in every request that holds slots somewhere, a span can be stepped; it ends after 2 · layers steps and frees
//      its slot. A request that holds none has a first unfinished span whose needs are met; it waits for a slot only,
//      and slots become free.
//
// The policy orders what is ready: it may starve nobody (virtual deadlines do not move) and cannot break the argument,
// which does not depend on order.
#ifndef SALAMANDER_PREFILL_WORKER_SCHEDULE_H_
#define SALAMANDER_PREFILL_WORKER_SCHEDULE_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "absl/types/span.h"
#include "common/engine/forward.h"
#include "common/stream/item.h"
#include "common/stream/manifest.h"
#include "salamander/v1/stream.pb.h"

namespace salamander::prefill {

// The progress of one request's spans on one worker.
class RequestSchedule {
 public:
  // Whether an item of another worker is there.
  using HasItem = std::function<bool(const stream::ItemId&)>;

  RequestSchedule(const v1::Plan& plan, stream::LayerKinds sparse, int worker);

  struct OwnSpan {
    int32_t index = 0;  // in the plan
    bool started = false;
    int64_t layer = 0;
    engine::SpanPhase phase = engine::SpanPhase::kProject;
    bool finished() const { return phase == engine::SpanPhase::kFinished; }
  };
  // In order of span.
  const std::vector<OwnSpan>& spans() const { return spans_; }
  bool finished() const { return first_unfinished_ == spans_.size(); }
  int active() const { return active_; }

  // Which own span (position in spans()) can take a step now: the earliest started one whose needs are met, else, if
  // `may_start`, the next to start if it may. Nothing: all wait.
  std::optional<size_t> Next(const HasItem& has, bool may_start);
  // That span took its step; the first one starts it.
  void Advance(size_t position);

 private:
  bool NeedsMet(const OwnSpan& span, int64_t layer, const HasItem& has);
  bool MixedHere(int32_t index, int64_t layer) const;
  bool Present(int32_t index, int64_t layer, const HasItem& has) const;

  stream::LayerKinds sparse_;
  std::vector<int> own_position_;  // per span of the plan: position in spans_, or -1
  std::vector<OwnSpan> spans_;
  // Sparse layers: how many leading spans of the prompt are known to be present. Only grows, so a look costs O(1).
  std::vector<int32_t> present_;
  size_t first_unfinished_ = 0;
  size_t next_to_start_ = 0;
  int active_ = 0;
};

// What the policy sees of a request that has a span ready.
struct Candidate {
  int32_t priority = 0;  // higher first
  double deadline = 0;   // virtual (common/base/virtual_deadline.h): earlier first
  uint64_t order = 0;    // of arrival; breaks ties
};

// Position of the candidate to step: highest priority, then earliest deadline, then arrival. -1 if there is none.
int PickCandidate(absl::Span<const Candidate> candidates);

// How many slots one request may hold: one is left for others if there are two or more.
int SlotsPerRequest(int slots);

}  // namespace salamander::prefill

#endif  // SALAMANDER_PREFILL_WORKER_SCHEDULE_H_
