// Figures of how much work a role has: written by its engine thread, read by heartbeats and scrapes.
#ifndef SALAMANDER_COMMON_WORKER_LOAD_H_
#define SALAMANDER_COMMON_WORKER_LOAD_H_

#include <atomic>
#include <cstdint>
#include <string>

#include "common/service/metrics.h"

namespace salamander::worker {

// A moving average of tokens per second; 0 before the first sample.
class Rate {
 public:
  // `weight` is that of the newest sample, 0 to 1.
  explicit Rate(double weight) : weight_(weight) {}

  // One thread.
  void Add(int64_t tokens, double seconds) {
    if (seconds <= 0) return;
    const double rate = static_cast<double>(tokens) / seconds;
    const double before = average_;
    average_ = before == 0 ? rate : before + weight_ * (rate - before);
  }
  const std::atomic<double>& average() const { return average_; }

 private:
  const double weight_;
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
