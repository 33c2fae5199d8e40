#include "common/service/metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "common/service/server.h"
#include "common/service/version.h"
#include "tests/common/service/raw_client.h"

namespace salamander::service {
namespace {

using ::testing::HasSubstr;
using testing::HttpGet;
using testing::MetricValue;

class MetricsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    absl::StatusOr<std::unique_ptr<Server>> server = Server::Start({}, &metrics_, {});
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
  }
  std::string Scrape() { return HttpGet(server_->metrics_address(), "/metrics").value(); }

  Metrics metrics_{"tester"};
  std::unique_ptr<Server> server_;
};

TEST_F(MetricsTest, EveryProcessSaysWhatItIs) {
  const std::string scrape = Scrape();
  EXPECT_THAT(scrape, HasSubstr("200 OK"));
  EXPECT_THAT(scrape, HasSubstr("salamander_build_info{role=\"tester\",version=\"" + BuildVersion() + "\"} 1"));
  EXPECT_GT(MetricValue(scrape, "salamander_process_start_time_seconds").value(), 1.5e9);
  EXPECT_GT(MetricValue(scrape, "salamander_process_resident_bytes").value(), 1 << 20);
  EXPECT_GT(MetricValue(scrape, "salamander_process_open_fds").value(), 3);
  EXPECT_GT(MetricValue(scrape, "salamander_process_threads").value(), 1);
  EXPECT_GT(MetricValue(scrape, "salamander_process_cpu_seconds_total").value(), 0);
}

TEST_F(MetricsTest, SameNameAndLabelsIsTheSameMetric) {
  prometheus::Counter& counter = metrics_.Counter("salamander_test_things_total", "Things.", {{"kind", "a"}});
  counter.Increment(2);
  EXPECT_EQ(&counter, &metrics_.Counter("salamander_test_things_total", "Things.", {{"kind", "a"}}));
  metrics_.Counter("salamander_test_things_total", "Things.", {{"kind", "b"}}).Increment();
  const std::string scrape = Scrape();
  EXPECT_EQ(MetricValue(scrape, "salamander_test_things_total{kind=\"a\"}").value(), 2);
  EXPECT_EQ(MetricValue(scrape, "salamander_test_things_total{kind=\"b\"}").value(), 1);
}

TEST_F(MetricsTest, ReadersAreAskedAtEachScrape) {
  double value = 1;
  metrics_.CounterFrom("salamander_test_read_total", "Read.", {{"codec", "raw"}}, [&value] { return value; });
  metrics_.GaugeFrom("salamander_test_level", "Level.", {}, [&value] { return -value; });
  EXPECT_EQ(MetricValue(Scrape(), "salamander_test_read_total{codec=\"raw\"}").value(), 1);
  value = 5;
  const std::string scrape = Scrape();
  EXPECT_EQ(MetricValue(scrape, "salamander_test_read_total{codec=\"raw\"}").value(), 5);
  EXPECT_EQ(MetricValue(scrape, "salamander_test_level").value(), -5);
  EXPECT_THAT(scrape, HasSubstr("# TYPE salamander_test_read_total counter"));
  EXPECT_THAT(scrape, HasSubstr("# TYPE salamander_test_level gauge"));
}

TEST_F(MetricsTest, SamplesComeAndGo) {
  std::vector<Sample> samples;
  metrics_.GaugesFrom("salamander_test_link", "Links.", [&samples] { return samples; });
  EXPECT_THAT(Scrape(), HasSubstr("# TYPE salamander_test_link gauge"));
  samples = {{{{"peer", "a"}}, 1}, {{{"peer", "b"}}, 2}};
  EXPECT_EQ(MetricValue(Scrape(), "salamander_test_link{peer=\"a\"}").value(), 1);
  samples.erase(samples.begin());
  const std::string scrape = Scrape();
  EXPECT_EQ(MetricValue(scrape, "salamander_test_link{peer=\"b\"}").value(), 2);
  EXPECT_FALSE(MetricValue(scrape, "salamander_test_link{peer=\"a\"}").ok());
}

TEST_F(MetricsTest, LedgerAddsUp) {
  MemoryLedger ledger(1000);
  metrics_.ExportLedger(&ledger);
  const MemoryLedger::Hold hold = ledger.Take(MemoryOwner::kPages, 300).value();
  const std::string scrape = Scrape();
  EXPECT_EQ(MetricValue(scrape, "salamander_memory_bytes{owner=\"pages\"}").value(), 300);
  EXPECT_EQ(MetricValue(scrape, "salamander_memory_bytes{owner=\"free\"}").value(), 700);
  EXPECT_EQ(MetricValue(scrape, "salamander_memory_bytes{owner=\"capacity\"}").value(), 1000);
}

TEST_F(MetricsTest, HistogramHasItsBuckets) {
  metrics_.Histogram("salamander_test_wait_seconds", "Wait.", SecondsBuckets()).Observe(0.3);
  const std::string scrape = Scrape();
  EXPECT_EQ(MetricValue(scrape, "salamander_test_wait_seconds_bucket{le=\"0.25\"}").value(), 0);
  EXPECT_EQ(MetricValue(scrape, "salamander_test_wait_seconds_bucket{le=\"0.5\"}").value(), 1);
  EXPECT_EQ(MetricValue(scrape, "salamander_test_wait_seconds_bucket{le=\"600\"}").value(), 1);
}

TEST(MetricsLifetimeTest, NoReaderRunsAfterTheEnd) {
  auto metrics = std::make_unique<Metrics>("tester");
  int calls = 0;
  metrics->GaugeFrom("salamander_test_level", "Level.", {}, [&calls] { return ++calls; });
  const std::shared_ptr<prometheus::Collectable> collectable = metrics->collectable();
  collectable->Collect();
  EXPECT_EQ(calls, 1);
  metrics.reset();
  collectable->Collect();
  EXPECT_EQ(calls, 1);
}

}  // namespace
}  // namespace salamander::service
