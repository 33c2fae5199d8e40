// What a comparison by way of a ChoiceLog sees and what it does not, with the CPU on both sides.
#include "tests/common/engine/choice_log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>

#include "tests/common/engine/golden_run.h"

namespace salamander::engine {
namespace {

using ::testing::HasSubstr;

constexpr int64_t kSpan = 384;

class ChoiceLogTest : public testing::Test {
 protected:
  // Every 100th row of a list loses one choice of head 0 to the lowest block that it did not choose, if there is any.
  TappedOps::Tap SwappingRecorder() {
    return [this, record = log_.Recorder(*first_.ops)](const kernels::SparseShape& shape, const kernels::Matrix& q,
                                                       TappedOps::SparseList sequences, int32_t* blocks) {
      for (const kernels::SparseRows& sequence : sequences) {
        for (int64_t i = 0; i < sequence.rows; i += 100) {
          int32_t* row = blocks + (sequence.row + i) * shape.kv.kv_heads * shape.top_blocks;
          int32_t* end = row + shape.top_blocks;
          const int64_t places = shape.top_blocks - shape.local_blocks - 1 - shape.init_blocks;
          for (int32_t block = 0; block < (sequence.position + i) / kernels::kBlockTokens - shape.local_blocks;
               ++block) {
            if (std::find(row, end, block) != end) continue;
            row[shape.init_blocks + places - 1] = block;
            std::sort(row, end);
            ++swapped_;
            break;
          }
        }
      }
      return record(shape, q, sequences, blocks);
    };
  }

  ChoiceLog log_;
  TappedCase first_{"sparse", kernels::CreateCpuOps(2).value()}, second_{"sparse", kernels::CreateCpuOps(2).value()};
  int64_t swapped_ = 0;
};

TEST_F(ChoiceLogTest, AlikeRunsDifferInNothing) {
  first_.ops->SetTap(log_.Recorder(*first_.ops));
  const absl::StatusOr<Logits> first = RunDecode(*first_.golden, 1, 1);
  ASSERT_TRUE(first.ok()) << first.status();
  EXPECT_GT(log_.left(), 2 * 1500);  // rows of two sparse layers, the prompt's once in the last
  second_.ops->SetTap(log_.Follower());
  const absl::StatusOr<Logits> second = RunDecode(*second_.golden, 1, 1);
  ASSERT_TRUE(second.ok()) << second.status();
  EXPECT_EQ(*second, *first);
  EXPECT_EQ(log_.left(), 0);
  EXPECT_GT(log_.followed(), 0);
  EXPECT_EQ(log_.differing(), 0);
  EXPECT_EQ(log_.worst_shortfall(), 0);
}

TEST_F(ChoiceLogTest, OtherChoicesAreFollowedCountedAndValued) {
  first_.ops->SetTap(SwappingRecorder());
  const absl::StatusOr<Outcome> first = RunPrefill(*first_.golden, kSpan);
  ASSERT_TRUE(first.ok()) << first.status();
  second_.ops->SetTap(log_.Follower());
  const absl::StatusOr<Outcome> second = RunPrefill(*second_.golden, kSpan);
  ASSERT_TRUE(second.ok()) << second.status();
  // The same arithmetic with the same choices, which are not the oracle's.
  EXPECT_EQ(second->context, first->context);
  EXPECT_EQ(second->logits, first->logits);
  EXPECT_GT(RelativeError(first->context.at("state.1"), GoldenPrefill(*first_.golden).context.at("state.1")), 1e-3);
  EXPECT_GT(swapped_, 10);
  EXPECT_EQ(log_.differing(), swapped_);
  EXPECT_GT(log_.worst_shortfall(), 0.1);
  EXPECT_LE(log_.worst_shortfall(), 1);
}

TEST_F(ChoiceLogTest, WhatIsNoChoiceIsRefused) {
  first_.ops->SetTap([record = log_.Recorder(*first_.ops)](const kernels::SparseShape& shape, const kernels::Matrix& q,
                                                           TappedOps::SparseList sequences, int32_t* blocks) {
    blocks[shape.top_blocks - 1] = blocks[0];
    return record(shape, q, sequences, blocks);
  });
  ASSERT_TRUE(RunPrefill(*first_.golden, kSpan).ok());
  second_.ops->SetTap(log_.Follower());
  EXPECT_THAT(RunPrefill(*second_.golden, kSpan).status().message(), HasSubstr("blocks below"));
}

TEST_F(ChoiceLogTest, RunsOfDifferentLengthsAreRefused) {
  second_.ops->SetTap(log_.Follower());
  EXPECT_THAT(RunPrefill(*second_.golden, kSpan).status().message(), HasSubstr("has chosen for fewer rows"));
}

}  // namespace
}  // namespace salamander::engine
