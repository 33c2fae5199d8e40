// A model of made-up weights computes with numbers of the order of one, as its measurements assume.
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "common/engine/forward.h"
#include "tests/common/engine/golden_case.h"
#include "tests/testing/make_checkpoint.h"

namespace salamander::engine {
namespace {

double RootMeanSquare(const std::vector<float>& values) {
  double sum = 0;
  for (const float value : values) sum += static_cast<double>(value) * value;
  return std::sqrt(sum / static_cast<double>(values.size()));
}

TEST(DummyModelTest, KeysAndValuesAreOfTheOrderOfOne) {
  GoldenCase golden("wide");
  const auto checkpoint = model::Checkpoint::Open(testing::GoldenCheckpoint("wide"), model::LoadFormat::kDummy);
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  const auto dummy = Model::Load(**checkpoint, golden.ops.get(), &golden.ledger);
  ASSERT_TRUE(dummy.ok()) << dummy.status();
  constexpr int64_t kTokens = 256;
  const auto sequence = Sequence::Create(**dummy, golden.ledger, kTokens);
  const auto workspace = Workspace::Create(**dummy, golden.ledger, kTokens);
  const auto activations = SpanActivations::Create(**dummy, golden.ledger, kTokens);
  ASSERT_TRUE(sequence.ok() && workspace.ok() && activations.ok());
  SpanForward span(**sequence, **workspace, **activations, golden.prompt().subspan(0, kTokens), 0, kTokens);
  while (span.phase() != SpanPhase::kFinished) ASSERT_TRUE(span.Step().ok());
  for (int64_t layer = 0; layer < (*dummy)->layers(); ++layer) {
    if (!(*dummy)->is_sparse(layer)) {
      EXPECT_GT(RootMeanSquare(ReadState(**sequence, layer)), 0.1) << "state of layer " << layer;
      continue;
    }
    for (const bool values : {false, true}) {
      const double size = RootMeanSquare(ReadKv(**sequence, layer, kTokens, values));
      EXPECT_NEAR(size, 1, 0.3) << (values ? "values" : "keys") << " of layer " << layer;
    }
  }
}

}  // namespace
}  // namespace salamander::engine
