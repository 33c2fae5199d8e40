// Plans: what is a valid one, and that what legs send is exactly what legs expect.
#include "common/stream/manifest.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <set>

#include "tests/common/stream/stream_cluster.h"

namespace salamander::stream::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

v1::Plan MakePlan(const std::vector<std::pair<int64_t, int>>& ends_and_workers, int workers) {
  v1::Plan plan;
  for (int i = 0; i < workers; ++i) plan.add_prefill_workers();
  int64_t begin = 0;
  for (const auto& [end, worker] : ends_and_workers) {
    v1::SpanAssignment* span = plan.add_spans();
    span->set_begin(begin);
    span->set_end(end);
    span->set_worker(worker);
    begin = end;
  }
  plan.set_prompt_tokens(begin);
  return plan;
}

TEST(Manifest, RefusesBadPlansByName) {
  EXPECT_TRUE(CheckPlan(MakePlan({{128, 0}, {300, 1}}, 2)).ok());
  EXPECT_TRUE(CheckPlan(MakePlan({{1, 0}}, 1)).ok());
  const auto message = [](v1::Plan plan) { return std::string(CheckPlan(plan).message()); };
  EXPECT_EQ(message(v1::Plan()), "plan: prompt_tokens must be positive, got 0");
  EXPECT_EQ(message(MakePlan({{100, 0}, {300, 0}}, 1)), "plan: span 1 must begin at a multiple of 128, got 100");
  EXPECT_EQ(message(MakePlan({{128, 2}}, 2)), "plan: worker of span 0 must be in [0, 2), got 2");
  EXPECT_EQ(message(MakePlan({{128, -1}}, 2)), "plan: worker of span 0 must be in [0, 2), got -1");
  v1::Plan plan = MakePlan({{128, 0}, {256, 0}}, 1);
  plan.mutable_spans(1)->set_begin(0);
  EXPECT_EQ(message(plan), "plan: span 1 must begin at 128, got 0");
  plan = MakePlan({{128, 0}, {256, 0}}, 1);
  plan.mutable_spans(1)->set_end(128);
  EXPECT_EQ(message(plan), "plan: span 1 must end in (128, 256], got 128");
  plan.mutable_spans(1)->set_end(257);
  EXPECT_EQ(message(plan), "plan: span 1 must end in (128, 256], got 257");
  plan.mutable_spans()->RemoveLast();
  EXPECT_EQ(message(plan), "plan: spans must end at prompt_tokens 256, got 128");
}

TEST(Manifest, SendsItemsWhereTheyAreNeeded) {
  // Spans of workers 0, 1, 0, 2; worker 3 has none.
  const v1::Plan plan = MakePlan({{128, 0}, {256, 1}, {384, 0}, {500, 2}}, 4);
  const auto keys = [&](int span) { return Destinations(plan, {v1::ITEM_KIND_KEYS_VALUES, 5, span}); };
  EXPECT_THAT(keys(0), ElementsAre(1, 2, kDecodeWorker));
  EXPECT_THAT(keys(1), ElementsAre(0, 2, kDecodeWorker));
  EXPECT_THAT(keys(2), ElementsAre(2, kDecodeWorker));
  EXPECT_THAT(keys(3), ElementsAre(kDecodeWorker));
  const auto state = [&](int span) { return Destinations(plan, {v1::ITEM_KIND_STATE, 5, span}); };
  EXPECT_THAT(state(0), ElementsAre(1));
  EXPECT_THAT(state(1), ElementsAre(0));
  EXPECT_THAT(state(2), ElementsAre(2));
  EXPECT_THAT(state(3), ElementsAre(kDecodeWorker));
  EXPECT_THAT(Destinations(plan, {v1::ITEM_KIND_HIDDEN, 0, 2}), IsEmpty());
  EXPECT_THAT(Destinations(plan, {v1::ITEM_KIND_HIDDEN, 0, 3}), ElementsAre(kDecodeWorker));
  // One worker keeps its states to itself.
  EXPECT_THAT(Destinations(MakePlan({{128, 0}, {200, 0}}, 1), {v1::ITEM_KIND_STATE, 5, 0}), IsEmpty());
}

TEST(Manifest, ExpectsInOrderOfSpanThenLayer) {
  const v1::Plan plan = MakePlan({{128, 0}, {256, 1}}, 2);
  const LayerKinds sparse{true, false};
  EXPECT_THAT(ExpectedItems(plan, sparse, 0), IsEmpty());
  EXPECT_THAT(ExpectedItems(plan, sparse, 1),
              ElementsAre(ItemId{v1::ITEM_KIND_KEYS_VALUES, 0, 0}, ItemId{v1::ITEM_KIND_STATE, 1, 0}));
  EXPECT_THAT(ExpectedItems(plan, sparse, kDecodeWorker),
              ElementsAre(ItemId{v1::ITEM_KIND_KEYS_VALUES, 0, 0}, ItemId{v1::ITEM_KIND_KEYS_VALUES, 0, 1},
                          ItemId{v1::ITEM_KIND_STATE, 1, 1}, ItemId{v1::ITEM_KIND_HIDDEN, 0, 1}));
}

TEST(Manifest, WhatIsSentIsWhatIsExpected) {
  std::mt19937_64 random(3);
  const LayerKinds sparse{true, false, false, true};
  for (int round = 0; round < 200; ++round) {
    const int workers = 1 + static_cast<int>(random() % 5);
    const v1::Plan plan = RandomPlan(random, workers, v1::CODEC_RAW);
    ASSERT_TRUE(CheckPlan(plan).ok());
    std::set<std::pair<int, ItemId>> sent, expected;
    for (int32_t span = 0; span < plan.spans_size(); ++span) {
      for (int32_t layer = 0; layer < 4; ++layer) {
        const ItemId id{sparse[layer] ? v1::ITEM_KIND_KEYS_VALUES : v1::ITEM_KIND_STATE, layer, span};
        for (int worker : Destinations(plan, id)) sent.insert({worker, id});
      }
      const ItemId hidden{v1::ITEM_KIND_HIDDEN, 0, span};
      for (int worker : Destinations(plan, hidden)) sent.insert({worker, hidden});
    }
    for (int worker = kDecodeWorker; worker < workers; ++worker) {
      for (const ItemId& id : ExpectedItems(plan, sparse, worker)) EXPECT_TRUE(expected.insert({worker, id}).second);
    }
    EXPECT_EQ(sent, expected);
    // The decode worker gets all keys and values, and of the last span the rest.
    const size_t spans = plan.spans_size();
    EXPECT_EQ(ExpectedItems(plan, sparse, kDecodeWorker).size(), 2 * spans + 2 + 1);
  }
}

}  // namespace
}  // namespace salamander::stream::testing
