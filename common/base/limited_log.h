// A log for events that a stranger can cause as often as he likes: some lines a second, and the number of those left
// out.
#ifndef SALAMANDER_COMMON_BASE_LIMITED_LOG_H_
#define SALAMANDER_COMMON_BASE_LIMITED_LOG_H_

#include <cstdint>
#include <mutex>
#include <string>

#include "common/base/clock.h"
#include "common/base/log.h"

namespace salamander {

// Any thread.
class LimitedLog {
 public:
  explicit LimitedLog(int lines_per_second = 10, const Clock* clock = &RealClock())
      : lines_per_second_(lines_per_second), clock_(clock) {}

  void Write(LogLevel level, std::string message) {
    {
      std::lock_guard lock(mutex_);
      if (const double now = clock_->Now(); now - second_began_ >= 1) {
        second_began_ = now;
        lines_ = 0;
      }
      if (++lines_ > lines_per_second_) {
        ++left_out_;
        return;
      }
      if (left_out_ > 0) message += " (and " + std::to_string(left_out_) + " like lines not shown before)";
      left_out_ = 0;
    }
    Log(level, message);
  }

 private:
  const int lines_per_second_;
  const Clock* const clock_;
  std::mutex mutex_;
  double second_began_ = -1;
  int64_t lines_ = 0;
  int64_t left_out_ = 0;
};

}  // namespace salamander

#endif  // SALAMANDER_COMMON_BASE_LIMITED_LOG_H_
