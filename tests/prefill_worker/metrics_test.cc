// What both kinds of workers export, before and after a request.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "tests/common/service/raw_client.h"
#include "tests/common/worker/played_cluster.h"

namespace salamander {
namespace {

using testing::HttpGet;
using testing::MetricValue;
using testing::PlayedCluster;

class Scrape {
 public:
  explicit Scrape(const std::string& address) {
    const absl::StatusOr<std::string> answer = HttpGet(address, "/metrics");
    EXPECT_TRUE(answer.ok()) << answer.status();
    text_ = answer.value_or("");
  }
  // -1 if there is no such sample.
  double operator[](const std::string& sample) const { return MetricValue(text_, sample).value_or(-1); }

 private:
  std::string text_;
};

TEST(WorkerMetricsTest, CountWhatARequestDid) {
  PlayedCluster cluster({.golden = "dense", .prefill_workers = 2, .metrics = true});
  const auto tokens = static_cast<int64_t>(cluster.continuation().size());
  const auto prompt_tokens = static_cast<double>(cluster.prompt().size());
  {
    const Scrape before(cluster.prefill()[0]->metrics_address());
    EXPECT_EQ(before["salamander_prefill_tokens_total"], 0);
    EXPECT_EQ(before["salamander_prefill_requests_total{outcome=\"ok\"}"], 0);
    EXPECT_GT(before["salamander_prefill_link_bytes_per_second{peer=\"d0\"}"], 0);
    EXPECT_GT(before["salamander_prefill_link_bytes_per_second{peer=\"p1\"}"], 0);
    EXPECT_EQ(before["salamander_prefill_link_connected{peer=\"p1\"}"], 1);
  }
  auto request = cluster.Request({.max_tokens = tokens});
  ASSERT_EQ(cluster.Run(*request), absl::OkStatus());
  ASSERT_TRUE(cluster.MemoryIsBack());

  double prefilled = 0, spans = 0, items = 0, raw = 0, encoded = 0;
  const std::string sent = "{codec=\"lossless\",direction=\"sent\"}";
  for (const auto& worker : cluster.prefill()) {
    const Scrape scrape(worker->metrics_address());
    prefilled += scrape["salamander_prefill_tokens_total"];
    spans += scrape["salamander_prefill_span_seconds_count"];
    EXPECT_EQ(scrape["salamander_prefill_span_compute_seconds_count"], scrape["salamander_prefill_span_seconds_count"]);
    items += scrape["salamander_prefill_stream_items_total" + sent];
    raw += scrape["salamander_prefill_stream_raw_bytes_total" + sent];
    encoded += scrape["salamander_prefill_stream_encoded_bytes_total" + sent];
    EXPECT_EQ(scrape["salamander_prefill_requests_total{outcome=\"ok\"}"], 1);
    EXPECT_EQ(scrape["salamander_prefill_queued_tokens"], 0);
    EXPECT_EQ(scrape["salamander_prefill_requests"], 0);
    EXPECT_EQ(scrape["salamander_prefill_active_spans"], 0);
    EXPECT_EQ(scrape["salamander_prefill_stream_checksum_failures_total"], 0);
    EXPECT_GT(scrape["salamander_prefill_tokens_per_second"], 0);
  }
  EXPECT_EQ(prefilled, prompt_tokens);
  EXPECT_EQ(spans, request->plan().spans_size());
  const v1::PrefillDone& done = request->seen().sent;
  EXPECT_EQ(items, done.items());
  EXPECT_EQ(raw, done.raw_bytes());
  EXPECT_EQ(encoded, done.encoded_bytes());
  EXPECT_GT(encoded, 0);

  const Scrape decode(cluster.decode()->metrics_address());
  EXPECT_EQ(decode["salamander_decode_tokens_total"], tokens);
  EXPECT_EQ(decode["salamander_decode_step_seconds_count"], tokens - 1) << "the first comes from the hidden row";
  EXPECT_EQ(decode["salamander_decode_batch_size_count"], tokens - 1);
  EXPECT_EQ(decode["salamander_decode_inter_token_seconds_count"], tokens - 1);
  EXPECT_EQ(decode["salamander_decode_first_step_seconds_count"], 1);
  EXPECT_EQ(decode["salamander_decode_queue_seconds_count"], 1);
  EXPECT_EQ(decode["salamander_decode_requests_total{outcome=\"ok\"}"], 1);
  EXPECT_EQ(decode["salamander_decode_waiting_requests"], 0);
  EXPECT_EQ(decode["salamander_decode_decoding_requests"], 0);
  EXPECT_GT(decode["salamander_decode_stream_items_total{codec=\"lossless\",direction=\"received\"}"], 0);
  EXPECT_EQ(decode["salamander_decode_stream_refused_total{reason=\"unknown\"}"], 0);
  EXPECT_EQ(decode["salamander_memory_bytes{owner=\"pages\"}"], 0);
  EXPECT_EQ(decode["salamander_decode_reserved_bytes"], 0);
  EXPECT_GT(decode["salamander_decode_reservable_bytes"], 0);
}

}  // namespace
}  // namespace salamander
