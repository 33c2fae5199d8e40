// A rate per minute: what was not used in the last minute may be used at once.
#ifndef SALAMANDER_ROUTER_TOKEN_BUCKET_H_
#define SALAMANDER_ROUTER_TOKEN_BUCKET_H_

#include <algorithm>

namespace salamander::router {

// Begins full. Times are seconds of one clock. Not thread-safe.
class TokenBucket {
 public:
  TokenBucket(double per_minute, double now) : capacity_(per_minute), level_(per_minute), updated_(now) {}

  // Seconds until `cost` may be taken; 0: now. What costs more than a whole minute's rate may be taken once the bucket
  // is full, or it never could; the bucket then owes the rest, and the rate holds in the long run.
  double Wait(double cost, double now) {
    Refill(now);
    return std::max(0.0, std::min(cost, capacity_) - level_) * 60 / capacity_;
  }
  // Negative: gives back.
  void Take(double cost, double now) {
    Refill(now);
    level_ = std::min(capacity_, level_ - cost);
  }
  // What is owed stays owed.
  void SetRate(double per_minute, double now) {
    Refill(now);
    level_ = std::min(per_minute, level_ + per_minute - capacity_);
    capacity_ = per_minute;
  }
  double per_minute() const { return capacity_; }

 private:
  void Refill(double now) {
    level_ = std::min(capacity_, level_ + (now - updated_) * capacity_ / 60);
    updated_ = now;
  }

  double capacity_;
  double level_;
  double updated_;
};

}  // namespace salamander::router

#endif  // SALAMANDER_ROUTER_TOKEN_BUCKET_H_
