#include "prefill_worker/schedule.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <set>
#include <string>
#include <utility>

#include "common/base/virtual_deadline.h"

namespace salamander::prefill {
namespace {

using engine::SpanPhase;
using ::testing::Eq;
using ::testing::Optional;

// Spans of 128 tokens, given to these workers in order.
v1::Plan MakePlan(const std::vector<int>& workers, int prefill_workers) {
  v1::Plan plan;
  for (size_t i = 0; i < workers.size(); ++i) {
    v1::SpanAssignment& span = *plan.add_spans();
    span.set_begin(static_cast<int64_t>(i) * 128);
    span.set_end(static_cast<int64_t>(i + 1) * 128);
    span.set_worker(workers[i]);
  }
  plan.set_prompt_tokens(static_cast<int64_t>(workers.size()) * 128);
  for (int i = 0; i < prefill_workers; ++i) plan.add_prefill_workers()->set_instance_id(i + 1);
  plan.mutable_decode_worker()->set_instance_id(100);
  return plan;
}

constexpr bool kSparse = true, kLightning = false;
stream::ItemId KeysValues(int layer, int span) { return {v1::ITEM_KIND_KEYS_VALUES, layer, span}; }
stream::ItemId State(int layer, int span) { return {v1::ITEM_KIND_STATE, layer, span}; }

class Items {
 public:
  void Add(const stream::ItemId& id) { items_.insert(id); }
  RequestSchedule::HasItem has() const {
    return [this](const stream::ItemId& id) { return items_.contains(id); };
  }

 private:
  std::set<stream::ItemId> items_;
};

TEST(ScheduleTest, FirstSpanRunsThroughWithoutNeeds) {
  RequestSchedule schedule(MakePlan({0, 1}, 2), {kSparse, kLightning}, 0);
  Items nothing;
  for (int step = 0; step < 4; ++step) {
    ASSERT_THAT(schedule.Next(nothing.has(), true), Optional(Eq(0u))) << step;
    schedule.Advance(0);
  }
  EXPECT_TRUE(schedule.finished());
  EXPECT_EQ(schedule.Next(nothing.has(), true), std::nullopt);
  EXPECT_EQ(schedule.active(), 0);
}

TEST(ScheduleTest, SparseSpanStartsOnceAllEarlierKeysAreThere) {
  RequestSchedule schedule(MakePlan({0, 1, 2}, 3), {kSparse, kSparse}, 2);
  Items items;
  items.Add(KeysValues(0, 1));
  EXPECT_EQ(schedule.Next(items.has(), true), std::nullopt);
  items.Add(KeysValues(0, 0));
  EXPECT_THAT(schedule.Next(items.has(), true), Optional(Eq(0u)));
  EXPECT_EQ(schedule.Next(items.has(), /*may_start=*/false), std::nullopt);
  schedule.Advance(0);  // kProject of layer 0
  ASSERT_THAT(schedule.Next(items.has(), false), Optional(Eq(0u)));
  schedule.Advance(0);  // kMix of layer 0
  ASSERT_THAT(schedule.Next(items.has(), false), Optional(Eq(0u))) << "kProject needs nothing";
  schedule.Advance(0);
  EXPECT_EQ(schedule.Next(items.has(), false), std::nullopt) << "kMix of layer 1 lacks both";
  items.Add(KeysValues(1, 0));
  EXPECT_EQ(schedule.Next(items.has(), false), std::nullopt);
  items.Add(KeysValues(1, 1));
  EXPECT_THAT(schedule.Next(items.has(), false), Optional(Eq(0u)));
}

TEST(ScheduleTest, LightningSpanNeedsTheStateBeforeItOnly) {
  RequestSchedule schedule(MakePlan({0, 1, 2}, 3), {kLightning}, 2);
  Items items;
  items.Add(State(0, 0));
  EXPECT_EQ(schedule.Next(items.has(), true), std::nullopt);
  items.Add(State(0, 1));
  EXPECT_THAT(schedule.Next(items.has(), true), Optional(Eq(0u)));
}

TEST(ScheduleTest, OwnEarlierSpanMustHaveMixedTheLayer) {
  RequestSchedule schedule(MakePlan({0, 0}, 1), {kSparse, kSparse}, 0);
  Items nothing;
  ASSERT_THAT(schedule.Next(nothing.has(), true), Optional(Eq(0u)));
  schedule.Advance(0);
  ASSERT_THAT(schedule.Next(nothing.has(), true), Optional(Eq(0u)));
  schedule.Advance(0);
  // Both could go on; the earlier one does. The later one may start, now that span 0 has mixed layer 0.
  ASSERT_THAT(schedule.Next(nothing.has(), true), Optional(Eq(0u)));
  schedule.Advance(1);
  EXPECT_EQ(schedule.active(), 2);
  EXPECT_TRUE(schedule.spans()[1].started);
  schedule.Advance(1);
  schedule.Advance(1);  // span 1 projected layer 1, where span 0 has not mixed
  ASSERT_THAT(schedule.Next(nothing.has(), true), Optional(Eq(0u)));
  EXPECT_EQ(schedule.spans()[1].phase, SpanPhase::kMix);
}

TEST(PolicyTest, PriorityThenDeadlineThenArrival) {
  struct Case {
    std::string name;
    std::vector<Candidate> candidates;
    int chosen;
  };
  const std::vector<Case> cases = {
      {"none", {}, -1},
      {"one", {{0, 5, 1}}, 0},
      {"higher priority beats an earlier deadline", {{0, 1, 1}, {1, 9, 2}}, 1},
      {"earlier deadline", {{0, 5, 1}, {0, 4, 2}, {0, 6, 3}}, 1},
      {"arrival breaks ties", {{0, 5, 7}, {0, 5, 3}}, 1},
      {"negative priority goes last", {{-1, 0, 1}, {0, 99, 2}}, 1},
  };
  for (const Case& test : cases) EXPECT_EQ(PickCandidate(test.candidates), test.chosen) << test.name;
}

TEST(PolicyTest, ShorterFirstButNoStarvation) {
  const double long_prompt = VirtualDeadline(/*arrival=*/0, 1'000'000, 1000);
  EXPECT_LT(VirtualDeadline(10, 2000, 1000), long_prompt) << "a short prompt overtakes";
  EXPECT_GT(VirtualDeadline(1000, 2000, 1000), long_prompt) << "but not for ever";
}

TEST(PolicyTest, OneSlotIsLeftForOthers) {
  EXPECT_EQ(SlotsPerRequest(1), 1);
  EXPECT_EQ(SlotsPerRequest(2), 1);
  EXPECT_EQ(SlotsPerRequest(4), 3);
}

// A whole cluster of schedules, with a network that delivers in any order and as late as it likes.
class Simulation {
 public:
  Simulation(uint64_t seed, int workers, int requests, int slots) : random_(seed), slots_(slots) {
    for (int r = 0; r < requests; ++r) {
      Request& request = requests_.emplace_back();
      stream::LayerKinds sparse(1 + Below(4));
      for (size_t layer = 0; layer < sparse.size(); ++layer) sparse[layer] = Below(2) == 1;
      std::vector<int> owners(1 + Below(8));
      const bool in_turn = Below(2) == 1;
      for (size_t i = 0; i < owners.size(); ++i) owners[i] = in_turn ? static_cast<int>(i) % workers : Below(workers);
      request.sparse = sparse;
      request.plan = MakePlan(owners, workers);
      request.priority = Below(3);
      request.deadline = Below(100);
      request.mixed.resize(owners.size(), 0);
      request.projected.resize(owners.size(), 0);
      for (int w = 0; w < workers; ++w) {
        request.legs.push_back({RequestSchedule(request.plan, sparse, w), {}});
        unclaimed_.emplace_back(r, w);
      }
    }
    std::shuffle(unclaimed_.begin(), unclaimed_.end(), random_);
    free_slots_.assign(workers, slots);
  }

  // Empty if every request finished; otherwise what went wrong.
  std::string Run() {
    while (!AllFinished()) {
      std::vector<int> workers(free_slots_.size());
      for (size_t w = 0; w < workers.size(); ++w) workers[w] = static_cast<int>(w);
      std::shuffle(workers.begin(), workers.end(), random_);
      if (Below(4) == 0 && Claim()) continue;
      if (Below(2) == 0 && Deliver()) continue;
      bool stepped = false;
      for (int worker : workers) {
        if (Turn(worker)) {
          stepped = true;
          break;
        }
      }
      if (!failure_.empty()) return failure_;
      if (!stepped && !Deliver() && !Claim()) return "deadlock";
    }
    for (int free : free_slots_) {
      if (free != slots_) return "a slot was not given back";
    }
    return "";
  }

 private:
  struct Leg {
    RequestSchedule schedule;
    Items items;
    bool claimed = false;
  };
  struct Request {
    v1::Plan plan;
    stream::LayerKinds sparse;
    int32_t priority = 0;
    double deadline = 0;
    std::vector<Leg> legs;  // per worker
    // The truth: how many layers each span has projected and mixed, wherever.
    std::vector<int64_t> projected, mixed;
  };
  struct Flight {
    int request = 0;
    int worker = 0;
    stream::ItemId id;
  };

  int Below(int limit) { return static_cast<int>(random_() % limit); }

  bool AllFinished() const {
    for (const Request& request : requests_) {
      for (const Leg& leg : request.legs) {
        if (!leg.schedule.finished()) return false;
      }
    }
    return true;
  }

  // A stream reaches its worker. Workers hear of requests in different orders, which is how they could block each
  // other.
  bool Claim() {
    if (unclaimed_.empty()) return false;
    const auto [request, worker] = unclaimed_.back();
    unclaimed_.pop_back();
    requests_[request].legs[worker].claimed = true;
    return true;
  }

  bool Deliver() {
    if (in_flight_.empty()) return false;
    std::swap(in_flight_[Below(static_cast<int>(in_flight_.size()))], in_flight_.back());
    const Flight flight = in_flight_.back();
    in_flight_.pop_back();
    requests_[flight.request].legs[flight.worker].items.Add(flight.id);
    return true;
  }

  // As Executor::Turn does it.
  bool Turn(int worker) {
    std::vector<std::pair<int, size_t>> ready;
    std::vector<Candidate> candidates;
    for (size_t r = 0; r < requests_.size(); ++r) {
      Leg& leg = requests_[r].legs[worker];
      if (!leg.claimed) continue;
      const bool may_start = free_slots_[worker] > 0 && leg.schedule.active() < SlotsPerRequest(slots_);
      const std::optional<size_t> position = leg.schedule.Next(leg.items.has(), may_start);
      if (!position.has_value()) continue;
      ready.emplace_back(r, *position);
      candidates.push_back({requests_[r].priority, requests_[r].deadline, r});
    }
    const int chosen = PickCandidate(candidates);
    if (chosen < 0) return false;
    Step(worker, ready[chosen].first, ready[chosen].second);
    return true;
  }

  void Step(int worker, int r, size_t position) {
    Request& request = requests_[r];
    RequestSchedule& schedule = request.legs[worker].schedule;
    const RequestSchedule::OwnSpan before = schedule.spans()[position];
    if (!before.started && --free_slots_[worker] < 0) failure_ = "more spans than slots";
    const bool sparse = request.sparse[before.layer];
    if (before.phase == SpanPhase::kMix) CheckTruth(request, before, sparse);
    schedule.Advance(position);
    if (before.phase == SpanPhase::kProject) {
      ++request.projected[before.index];
      if (sparse) Publish(r, KeysValues(static_cast<int>(before.layer), before.index));
    } else {
      ++request.mixed[before.index];
      if (!sparse) Publish(r, State(static_cast<int>(before.layer), before.index));
    }
    if (schedule.spans()[position].finished()) ++free_slots_[worker];
  }

  // A mix reads what other spans made: it must really have been made.
  void CheckTruth(const Request& request, const RequestSchedule::OwnSpan& span, bool sparse) {
    for (int32_t i = 0; i < span.index; ++i) {
      if (sparse && request.projected[i] <= span.layer) failure_ = "mixed without the keys of an earlier span";
    }
    if (!sparse && span.index > 0 && request.mixed[span.index - 1] <= span.layer) failure_ = "mixed without a state";
  }

  void Publish(int r, const stream::ItemId& id) {
    for (int destination : stream::Destinations(requests_[r].plan, id)) {
      if (destination != stream::kDecodeWorker) in_flight_.push_back({r, destination, id});
    }
  }

  std::mt19937_64 random_;
  const int slots_;
  std::vector<Request> requests_;
  std::vector<int> free_slots_;
  std::vector<Flight> in_flight_;
  std::vector<std::pair<int, int>> unclaimed_;  // request, worker
  std::string failure_;
};

TEST(SimulationTest, NoDeadlockWhateverTheNumbers) {
  for (int workers = 1; workers <= 5; ++workers) {
    for (int requests : {1, 2, 3, 7}) {
      for (int slots = 1; slots <= 3; ++slots) {
        for (uint64_t seed = 0; seed < 40; ++seed) {
          Simulation simulation(seed * 1009 + workers * 101 + requests * 11 + slots, workers, requests, slots);
          ASSERT_EQ(simulation.Run(), "")
              << workers << " workers, " << requests << " requests, " << slots << " slots, seed " << seed;
        }
      }
    }
  }
}

}  // namespace
}  // namespace salamander::prefill
