// A process's metrics: a thin layer over prometheus-cpp that keeps names, help texts and buckets in one place per room.
//
//   Metrics metrics("decode_worker");
//   prometheus::Counter& tokens = metrics.Counter("salamander_decode_tokens_total", "Tokens sent.");
//
// Names are salamander_<room>_<what>_<unit>, base units, _total only on counters. Any thread.
#ifndef SALAMANDER_COMMON_SERVICE_METRICS_H_
#define SALAMANDER_COMMON_SERVICE_METRICS_H_

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "common/base/memory_ledger.h"

namespace salamander::service {

using Labels = std::map<std::string, std::string>;

struct Sample {
  Labels labels;
  double value = 0;
};

// Seconds, 1 ms to 600 s.
const std::vector<double>& SecondsBuckets();
// Tokens, 1 to 1M and beyond.
const std::vector<double>& TokenBuckets();

// Processor time that this process has used, user and system.
double ProcessCpuSeconds();

class Metrics {
 public:
  // `role` and the build version go into salamander_build_info.
  explicit Metrics(const std::string& role);
  ~Metrics();

  // The metric of that name and labels, made at the first call. References stay valid as long as this object.
  prometheus::Counter& Counter(const std::string& name, const std::string& help, const Labels& labels = {});
  prometheus::Gauge& Gauge(const std::string& name, const std::string& help, const Labels& labels = {});
  prometheus::Histogram& Histogram(const std::string& name, const std::string& help, const std::vector<double>& buckets,
                                   const Labels& labels = {});
  // A counter whose value is kept elsewhere and read at each scrape.
  void CounterFrom(const std::string& name, const std::string& help, const Labels& labels,
                   std::function<double()> read);
  void GaugeFrom(const std::string& name, const std::string& help, const Labels& labels, std::function<double()> read);
  // Gauges that come and go: each scrape shows the samples there are, and the family even if there are none.
  void GaugesFrom(const std::string& name, const std::string& help, std::function<std::vector<Sample>()> read);
  // salamander_memory_bytes{owner}, free and capacity included.
  void ExportLedger(const MemoryLedger* ledger);

  std::shared_ptr<prometheus::Collectable> collectable() const;

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;
};

}  // namespace salamander::service

#endif  // SALAMANDER_COMMON_SERVICE_METRICS_H_
