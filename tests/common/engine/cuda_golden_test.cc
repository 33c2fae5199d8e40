// The forward pass on a GPU against the oracle: bf16 where the oracle has float64, so within bounds of rounding.
//
// Block choices are a matter of rounding too, where values at the cut lie closer than it: tiers in bf16 alone, as the
// model wants them, move some. So choices are held to the oracle's values of what was chosen, and everything else to a
// run on the CPU that chooses the same (choice_log.h); to the golden data themselves where no choice differs, as always
// in the dense regime.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <limits>
#include <memory>
#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "kernels/cuda.h"
#include "tests/common/engine/choice_log.h"
#include "tests/common/engine/golden_run.h"

namespace salamander::engine {
namespace {

constexpr double kLogitsError = 2e-2, kContextError = 1e-2;
// Of a chosen block's value below the oracle's cut, relative to it. Scores are exponents of values, and those of keys
// and queries that are off by kContextError each are off by about so much.
constexpr double kShortfall = 2e-2;
// Between the same rows in other batches.
constexpr double kBatchError = 5e-3;

// The errors of a comparison as parts of their limits.
struct Worst {
  void Add(const std::string& what, double part) {
    if (!(part <= most)) {
      most = part;
      where = what;
    }
  }
  std::string ToString() const { return absl::StrFormat("%.2f (%s)", most, where); }
  double most = 0;
  std::string where = "-";
};

Worst LogitsParts(const Logits& got, const Logits& want) {
  Worst worst;
  if (got.size() != want.size()) worst.Add("number of steps", std::numeric_limits<double>::infinity());
  for (size_t step = 0; step < std::min(got.size(), want.size()); ++step) {
    worst.Add(absl::StrCat("step ", step), WorstError(got[step], want[step]) / kLogitsError);
  }
  return worst;
}

Worst ContextParts(const Outcome& got, const Outcome& want) {
  Worst worst;
  for (const auto& [name, values] : want.context) {
    worst.Add(name, RelativeError(got.context.at(name), values) / kContextError);
  }
  return worst;
}

class CudaGoldenTest : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    absl::StatusOr<std::unique_ptr<kernels::Ops>> ops = kernels::CreateCudaOps(0);
    if (!ops.ok() && absl::StrContains(ops.status().message(), "no GPU")) GTEST_SKIP() << ops.status().message();
    ASSERT_TRUE(ops.ok()) << ops.status();
    device_ = std::make_unique<TappedCase>(GetParam(), *std::move(ops));
    host_ = std::make_unique<TappedCase>(GetParam(), kernels::CreateCpuOps(2).value());
  }

  // Says how near its limits the device came, which is worth knowing before it misses them.
  static void Report(const std::string& run, const std::string& from, const std::string& parts) {
    std::printf("%s, %s, parts of the limits: %s\n", run.c_str(), from.c_str(), parts.c_str());
  }

  void ExpectFairChoices(const std::string& run, const ChoiceLog& choices) {
    EXPECT_EQ(choices.left(), 0) << "choices of rows that the CPU did not run";
    EXPECT_LE(choices.worst_shortfall(), kShortfall);
    Report(run, "choices",
           absl::StrFormat("%.2f (%d of %d differ)", choices.worst_shortfall() / kShortfall, choices.differing(),
                           choices.followed()));
  }

  std::unique_ptr<TappedCase> device_, host_;
};

TEST_P(CudaGoldenTest, PrefillLeavesKeysValuesAndStates) {
  for (const int64_t span_tokens : {128, 384, 448, 8192}) {
    const std::string run = absl::StrCat(GetParam(), ", spans of ", span_tokens);
    SCOPED_TRACE(run);
    ChoiceLog choices;
    device_->ops->SetTap(choices.Recorder(*device_->ops));
    const absl::StatusOr<Outcome> got = RunPrefill(*device_->golden, span_tokens);
    ASSERT_TRUE(got.ok()) << got.status();
    host_->ops->SetTap(choices.Follower());
    const absl::StatusOr<Outcome> want = RunPrefill(*host_->golden, span_tokens);
    ASSERT_TRUE(want.ok()) << want.status();

    ExpectFairChoices(run, choices);
    auto compare = [&](const std::string& from, const Outcome& reference, bool expected) {
      const Worst context = ContextParts(*got, reference), logits = LogitsParts(got->logits, reference.logits);
      Report(run, from, absl::StrCat("context ", context.ToString(), ", logits ", logits.ToString()));
      if (!expected) return;
      EXPECT_LT(context.most, 1) << from << ": " << context.where;
      EXPECT_LT(logits.most, 1) << from << ": " << logits.where;
    };
    compare("from the CPU with these choices", *want, true);
    compare("from the golden data", GoldenPrefill(*host_->golden), choices.differing() == 0);
  }
}

// One row, step by step without graphs; then as graphs, alone and three rows in a batch filled up to four.
TEST_P(CudaGoldenTest, DecodeStepsAloneRepeatedAndPadded) {
  const std::string run = absl::StrCat(GetParam(), ", decoded");
  ChoiceLog choices;
  device_->ops->SetTiming(true);  // Nothing is replayed.
  device_->ops->SetTap(choices.Recorder(*device_->ops));
  const absl::StatusOr<Logits> eager = RunDecode(*device_->golden, 1, 1);
  ASSERT_TRUE(eager.ok()) << eager.status();
  device_->ops->SetTap(nullptr);
  device_->ops->SetTiming(false);
  host_->ops->SetTap(choices.Follower());
  const absl::StatusOr<Logits> want = RunDecode(*host_->golden, 1, 1);
  ASSERT_TRUE(want.ok()) << want.status();

  ExpectFairChoices(run, choices);
  auto compare = [&](const Logits& got, const std::string& from, const Logits& reference, bool expected) {
    const Worst logits = LogitsParts(got, reference);
    Report(run, from, absl::StrCat("logits ", logits.ToString()));
    if (!expected) return;
    EXPECT_LT(logits.most, 1) << from << ": " << logits.where;
  };
  compare(*eager, "from the CPU with these choices", *want, true);
  compare(*eager, "from the golden data", GoldenDecode(*host_->golden), choices.differing() == 0);
  for (const int64_t copies : {1, 3}) {
    SCOPED_TRACE(absl::StrCat(copies, " rows"));
    const absl::StatusOr<Logits> repeated = RunDecode(*device_->golden, copies, 4);
    ASSERT_TRUE(repeated.ok()) << repeated.status();
    compare(*repeated, absl::StrCat("as a graph of ", copies, " rows, from the CPU with these choices"), *want, true);
    ASSERT_EQ(repeated->size(), eager->size());
    for (size_t step = 0; step < repeated->size(); ++step) {
      EXPECT_LT(WorstError((*repeated)[step], (*eager)[step]), kBatchError) << "step " << step;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, CudaGoldenTest, testing::ValuesIn(kGoldenNames),
                         [](const auto& instance) { return std::string(instance.param); });

}  // namespace
}  // namespace salamander::engine
