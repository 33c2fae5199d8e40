// The block choices of a run on one device, made again by a run on the CPU.
//
// Which of two blocks of nearly equal value is chosen, rounding decides, and the outputs of the two differ by far more
// than rounding. A device with other arithmetic is therefore compared in two parts: its choices by their values, and
// the rest with a run in float32 (the oracle's results to 1e-4, golden_test.cc) that makes the device's choices.
#ifndef SALAMANDER_TESTS_COMMON_ENGINE_CHOICE_LOG_H_
#define SALAMANDER_TESTS_COMMON_ENGINE_CHOICE_LOG_H_

#include <cstdint>
#include <deque>
#include <vector>

#include "tests/common/engine/tapped_ops.h"

namespace salamander::engine {

class ChoiceLog {
 public:
  // Taps of the two runs, which make the same calls in the same order; the first ends before the second begins. Both
  // outlived by this. `ops` is the device's.
  TappedOps::Tap Recorder(kernels::Ops& ops);
  // For the CPU. INTERNAL if the other run's choice is no choice at all: too many or too few blocks, later ones, some
  // twice.
  TappedOps::Tap Follower();

  // Recorded and not yet followed.
  int64_t left() const { return static_cast<int64_t>(rows_.size()); }
  // Of rows and key/value heads followed: all, and those where the CPU alone would have chosen otherwise.
  int64_t followed() const { return followed_; }
  int64_t differing() const { return differing_; }
  // How far, relative to it, the value of a chosen block was below that of the last block that the oracle would choose;
  // values in float64, from the CPU's keys and queries.
  double worst_shortfall() const { return worst_shortfall_; }

 private:
  using Row = std::vector<int32_t>;  // [kv heads, top blocks]
  absl::Status FollowHead(const kernels::SparseShape& shape, const float* queries, int64_t head,
                          const kernels::SparseRows& sequence, int64_t position, const int32_t* theirs,
                          int32_t* blocks);

  std::deque<Row> rows_;
  int64_t followed_ = 0, differing_ = 0;
  double worst_shortfall_ = 0;
};

}  // namespace salamander::engine

#endif  // SALAMANDER_TESTS_COMMON_ENGINE_CHOICE_LOG_H_
