// Monotonic seconds, as an interface so that leases, heartbeats and queues can be tested without waiting.
#ifndef SALAMANDER_COMMON_BASE_CLOCK_H_
#define SALAMANDER_COMMON_BASE_CLOCK_H_

#include <chrono>

namespace salamander {

class Clock {
 public:
  virtual ~Clock() = default;
  // Seconds since some fixed moment; never goes back. Any thread.
  virtual double Now() const = 0;
};

class SteadyClock final : public Clock {
 public:
  double Now() const override {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
  }
};

// Shared instance of the real clock.
inline const Clock& RealClock() {
  static const SteadyClock clock;
  return clock;
}

}  // namespace salamander

#endif  // SALAMANDER_COMMON_BASE_CLOCK_H_
