// A clock that stands still until told.
#ifndef SALAMANDER_TESTS_ROUTER_FAKE_CLOCK_H_
#define SALAMANDER_TESTS_ROUTER_FAKE_CLOCK_H_

#include <atomic>

#include "common/base/clock.h"

namespace salamander::router {

class FakeClock final : public Clock {
 public:
  double Now() const override { return now_; }
  void Advance(double seconds) { now_ = now_ + seconds; }

 private:
  std::atomic<double> now_ = 1000;
};

}  // namespace salamander::router

#endif  // SALAMANDER_TESTS_ROUTER_FAKE_CLOCK_H_
