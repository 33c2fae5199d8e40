#include "common/service/metrics.h"

#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <system_error>
#include <utility>

#include "common/service/version.h"

namespace salamander::service {
namespace {

using prometheus::ClientMetric;
using prometheus::MetricFamily;
using prometheus::MetricType;

std::vector<ClientMetric::Label> ToClientLabels(const Labels& labels) {
  std::vector<ClientMetric::Label> result;
  for (const auto& [name, value] : labels) result.push_back({name, value});
  return result;
}

double ResidentBytes() {
  std::ifstream statm("/proc/self/statm");
  double total_pages = 0, resident_pages = 0;
  statm >> total_pages >> resident_pages;
  return resident_pages * static_cast<double>(sysconf(_SC_PAGESIZE));
}

double CountEntries(const char* folder) {
  std::error_code error;
  double entries = 0;
  std::filesystem::directory_iterator end;
  for (auto it = std::filesystem::directory_iterator(folder, error); !error && it != end; it.increment(error)) {
    ++entries;
  }
  return entries;
}

}  // namespace

double ProcessCpuSeconds() {
  timespec used{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
  return static_cast<double>(used.tv_sec) + static_cast<double>(used.tv_nsec) * 1e-9;
}

const std::vector<double>& SecondsBuckets() {
  static const std::vector<double> buckets = {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5,
                                              1,     2.5,    5,     10,   30,    60,   120, 300,  600};
  return buckets;
}

const std::vector<double>& TokenBuckets() {
  static const std::vector<double> buckets = {1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 524288, 1048576};
  return buckets;
}

// Collects the registry's metrics and those read at scrape time. Shared with the exposer, which may be in a scrape
// while the Metrics object goes away: that empties `families` first.
struct Metrics::Impl : prometheus::Collectable {
  using Reader = std::function<std::vector<Sample>()>;
  struct ReadFamily {
    std::string help;
    MetricType type;
    std::vector<Reader> readers;
  };

  std::vector<MetricFamily> Collect() const override {
    std::vector<MetricFamily> result = registry.Collect();
    std::lock_guard lock(mutex);
    for (const auto& [name, family] : families) {
      MetricFamily collected{name, family.help, family.type, {}};
      for (const Reader& read : family.readers) {
        for (const Sample& sample : read()) {
          ClientMetric metric;
          metric.label = ToClientLabels(sample.labels);
          (family.type == MetricType::Counter ? metric.counter.value : metric.gauge.value) = sample.value;
          collected.metric.push_back(std::move(metric));
        }
      }
      result.push_back(std::move(collected));
    }
    return result;
  }

  void AddReader(const std::string& name, const std::string& help, MetricType type, Reader read) {
    std::lock_guard lock(mutex);
    ReadFamily& family = families.try_emplace(name, ReadFamily{help, type, {}}).first->second;
    family.readers.push_back(std::move(read));
  }
  void AddReader(const std::string& name, const std::string& help, MetricType type, const Labels& labels,
                 std::function<double()> read) {
    AddReader(name, help, type, [labels, read = std::move(read)] { return std::vector<Sample>{{labels, read()}}; });
  }

  prometheus::Registry registry;
  mutable std::mutex mutex;
  std::map<std::string, ReadFamily> families;
};

Metrics::Metrics(const std::string& role) : impl_(std::make_shared<Impl>()) {
  Gauge("salamander_build_info", "Always 1; the labels say which build and role this is.",
        {{"role", role}, {"version", BuildVersion()}})
      .Set(1);
  Gauge("salamander_process_start_time_seconds", "When the process started, since the Unix epoch.")
      .Set(std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count());
  GaugeFrom("salamander_process_resident_bytes", "Resident memory.", {}, ResidentBytes);
  GaugeFrom("salamander_process_open_fds", "Open file descriptors.", {}, [] { return CountEntries("/proc/self/fd"); });
  GaugeFrom("salamander_process_threads", "Threads.", {}, [] { return CountEntries("/proc/self/task"); });
  CounterFrom("salamander_process_cpu_seconds_total", "Processor time used, user and system.", {}, ProcessCpuSeconds);
}

Metrics::~Metrics() {
  std::lock_guard lock(impl_->mutex);
  impl_->families.clear();
}

prometheus::Counter& Metrics::Counter(const std::string& name, const std::string& help, const Labels& labels) {
  return prometheus::BuildCounter().Name(name).Help(help).Register(impl_->registry).Add(labels);
}

prometheus::Gauge& Metrics::Gauge(const std::string& name, const std::string& help, const Labels& labels) {
  return prometheus::BuildGauge().Name(name).Help(help).Register(impl_->registry).Add(labels);
}

prometheus::Histogram& Metrics::Histogram(const std::string& name, const std::string& help,
                                          const std::vector<double>& buckets, const Labels& labels) {
  return prometheus::BuildHistogram().Name(name).Help(help).Register(impl_->registry).Add(labels, buckets);
}

void Metrics::CounterFrom(const std::string& name, const std::string& help, const Labels& labels,
                          std::function<double()> read) {
  impl_->AddReader(name, help, MetricType::Counter, labels, std::move(read));
}

void Metrics::GaugeFrom(const std::string& name, const std::string& help, const Labels& labels,
                        std::function<double()> read) {
  impl_->AddReader(name, help, MetricType::Gauge, labels, std::move(read));
}

void Metrics::GaugesFrom(const std::string& name, const std::string& help, std::function<std::vector<Sample>()> read) {
  impl_->AddReader(name, help, MetricType::Gauge, std::move(read));
}

// One consistent snapshot, so that the owners and `free` add up to `capacity` in every scrape.
void Metrics::ExportLedger(const MemoryLedger* ledger) {
  GaugesFrom("salamander_memory_bytes", "Memory ledger by owner; all but capacity add up to it.", [ledger] {
    const MemoryLedger::Snapshot now = ledger->Read();
    std::vector<Sample> samples;
    for (int owner = 0; owner < kMemoryOwners; ++owner) {
      samples.push_back({{{"owner", std::string(MemoryOwnerName(static_cast<MemoryOwner>(owner)))}},
                         static_cast<double>(now.held[owner])});
    }
    samples.push_back({{{"owner", "free"}}, static_cast<double>(now.free)});
    samples.push_back({{{"owner", "capacity"}}, static_cast<double>(now.capacity)});
    return samples;
  });
}

std::shared_ptr<prometheus::Collectable> Metrics::collectable() const { return impl_; }

}  // namespace salamander::service
