// Figures of how much work a role has: written by its engine thread, read by heartbeats and scrapes.
#ifndef SALAMANDER_COMMON_WORKER_LOAD_H_
#define SALAMANDER_COMMON_WORKER_LOAD_H_

#include <atomic>
#include <cstdint>
#include <string>

#include "common/service/metrics.h"

namespace salamander::worker {

// A moving average of tokens per second; 0 before the first sample. Tokens and seconds are averaged apart, so a sample
// counts by its length: how long work takes is not told by many short pieces of it.
class Rate {
 public:
  // `weight` is that of the newest sample, 0 to 1.
  explicit Rate(double weight) : weight_(weight) {}

  // One thread.
  void Add(int64_t tokens, double seconds) {
    if (seconds <= 0) return;
    tokens_ = (1 - weight_) * tokens_ + static_cast<double>(tokens);
    seconds_ = (1 - weight_) * seconds_ + seconds;
    average_ = tokens_ / seconds_;
  }
  const std::atomic<double>& average() const { return average_; }

 private:
  const double weight_;
  double tokens_ = 0, seconds_ = 0;
  std::atomic<double> average_{0};
};

// A gauge that shows `value`, which outlives the last scrape.
template <typename T>
void ExportGauge(const std::atomic<T>& value, const std::string& name, const std::string& help,
                 service::Metrics* metrics) {
  metrics->GaugeFrom(name, help, {}, [&value] { return static_cast<double>(value.load(std::memory_order_relaxed)); });
}

}  // namespace salamander::worker

#endif  // SALAMANDER_COMMON_WORKER_LOAD_H_
