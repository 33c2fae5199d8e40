#include "decode_worker/tier_progress.h"

#include <gtest/gtest.h>

#include <set>

namespace salamander::decode {
namespace {

v1::Plan ThreeSpans() {
  v1::Plan plan;
  for (int64_t begin : {0, 128, 256}) {
    v1::SpanAssignment& span = *plan.add_spans();
    span.set_begin(begin);
    span.set_end(begin == 256 ? 300 : begin + 128);
  }
  plan.set_prompt_tokens(300);
  return plan;
}

stream::ItemId KeysValues(int layer, int span) { return {v1::ITEM_KIND_KEYS_VALUES, layer, span}; }

TEST(TierProgressTest, GoesAsFarAsKeysAreThereWithoutAGap) {
  const v1::Plan plan = ThreeSpans();
  TierProgress tiers(&plan, {true, false});
  std::set<stream::ItemId> items = {KeysValues(0, 1)};
  const auto has = [&](const stream::ItemId& id) { return items.contains(id); };
  EXPECT_FALSE(tiers.Next(has).has_value());
  items.insert(KeysValues(0, 0));
  for (int64_t tokens : {128, 256}) {
    const auto piece = tiers.Next(has);
    ASSERT_TRUE(piece.has_value());
    EXPECT_EQ(piece->layer, 0);
    EXPECT_EQ(piece->tokens, tokens);
    tiers.Advance();
  }
  EXPECT_FALSE(tiers.Next(has).has_value());
  items.insert(KeysValues(0, 2));
  ASSERT_TRUE(tiers.Next(has).has_value());
  EXPECT_EQ(tiers.Next(has)->tokens, 300);
  tiers.Advance();
  EXPECT_FALSE(tiers.Next([](const stream::ItemId&) { return true; }).has_value());
}

TEST(TierProgressTest, EveryPieceOfEveryLayerOnce) {
  const v1::Plan plan = ThreeSpans();
  TierProgress tiers(&plan, {true, false, true, true});
  const auto all = [](const stream::ItemId&) { return true; };
  std::set<std::pair<int64_t, int64_t>> seen;
  while (const auto piece = tiers.Next(all)) {
    EXPECT_TRUE(seen.emplace(piece->layer, piece->tokens).second);
    tiers.Advance();
    ASSERT_LE(seen.size(), 9u);
  }
  EXPECT_EQ(seen.size(), 9u);
}

TEST(TierProgressTest, NoSparseLayerNoPiece) {
  const v1::Plan plan = ThreeSpans();
  TierProgress tiers(&plan, {false, false});
  EXPECT_FALSE(tiers.Next([](const stream::ItemId&) { return true; }).has_value());
}

}  // namespace
}  // namespace salamander::decode
