#include "router/api_keys.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "tests/router/fake_clock.h"
#include "tests/testing/temp_folder.h"

namespace salamander::router {
namespace {

using ::testing::HasSubstr;

TEST(TokenBucket, RefillsEvenlyAndHoldsAMinutesWorth) {
  TokenBucket bucket(60, 0);
  EXPECT_EQ(bucket.Wait(60, 0), 0);
  bucket.Take(60, 0);
  EXPECT_DOUBLE_EQ(bucket.Wait(1, 0), 1);
  EXPECT_DOUBLE_EQ(bucket.Wait(30, 10), 20);
  EXPECT_EQ(bucket.Wait(10, 10), 0);
  EXPECT_EQ(bucket.Wait(60, 1000), 0);
  bucket.Take(60, 1000);  // no more than a minute's had gathered
  EXPECT_GT(bucket.Wait(1, 1000), 0);
}

TEST(TokenBucket, WhatIsLargerThanItGoesWhenItIsFullAndIsOwed) {
  TokenBucket bucket(60, 0);
  EXPECT_EQ(bucket.Wait(180, 0), 0);
  bucket.Take(180, 0);  // -120
  EXPECT_DOUBLE_EQ(bucket.Wait(1, 0), 121);
  EXPECT_DOUBLE_EQ(bucket.Wait(180, 60), 120);  // full again
  bucket.Take(-170, 60);                        // given back
  EXPECT_EQ(bucket.Wait(60, 60), 0);
}

TEST(TokenBucket, ANewRateKeepsWhatIsOwed) {
  TokenBucket bucket(60, 0);
  bucket.Take(50, 0);
  bucket.SetRate(600, 0);
  EXPECT_DOUBLE_EQ(bucket.Wait(600, 0), 5);  // 550 there, 10 a second
  bucket.SetRate(6, 0);
  EXPECT_DOUBLE_EQ(bucket.Wait(1, 0), 450);  // -44
}

class ApiKeysTest : public ::testing::Test {
 protected:
  static std::string Entry(const std::string& name, const std::string& key, const std::string& limits = "") {
    return absl::StrCat(R"({"name": ")", name, R"(", "sha256": ")", absl::BytesToHexString(Sha256(key)), "\"", limits,
                        "}");
  }
  void Write(const std::vector<std::string>& entries) {
    std::string list;
    for (const std::string& entry : entries) absl::StrAppend(&list, list.empty() ? "" : ", ", entry);
    folder_.Write("keys", absl::StrCat(R"({"keys": [)", list, "]}"));
  }
  void Open() { keys_ = ApiKeys::Open(folder_.file("keys"), &clock_, &metrics_).value(); }
  ApiKey::Ptr Key(const std::string& key) { return keys_->Authenticate("Bearer " + key).value(); }
  double Count(const std::string& name, const service::Labels& labels) {
    return metrics_.Counter(name, "", labels).Value();
  }

  FakeClock clock_;
  service::Metrics metrics_{"router"};
  const testing::TempFolder folder_;
  std::unique_ptr<ApiKeys> keys_;
};

TEST_F(ApiKeysTest, OnlyKnownKeysAreLetIn) {
  Write({Entry("a", "sk-1"), Entry("b", "sk-2")});
  Open();
  EXPECT_EQ(Key("sk-1")->name(), "a");
  EXPECT_EQ(keys_->Authenticate("bearer sk-2").value()->name(), "b");
  const std::pair<std::string, std::string> cases[] = {
      {"", "no API key"},
      {"sk-1", "must be `Bearer KEY`"},
      {"Basic sk-1", "must be `Bearer KEY`"},
      {"Bearer ", "is not known"},
      {"Bearer sk-3", "is not known"},
      {"Bearer sk-1 ", "is not known"},
      {"Bearer a", "is not known"},
      {"Bearer " + absl::BytesToHexString(Sha256("sk-1")), "is not known"},
  };
  for (const auto& [authorization, message] : cases) {
    const absl::Status status = keys_->Authenticate(authorization).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kUnauthenticated) << authorization;
    EXPECT_THAT(std::string(status.message()), HasSubstr(message)) << authorization;
  }
  EXPECT_EQ(Count("salamander_router_unauthenticated_total", {{"reason", "none"}}), 1);
  EXPECT_EQ(Count("salamander_router_unauthenticated_total", {{"reason", "malformed"}}), 2);
  EXPECT_EQ(Count("salamander_router_unauthenticated_total", {{"reason", "unknown"}}), 5);
}

TEST_F(ApiKeysTest, RequestsAMinute) {
  Write({Entry("a", "sk-1", R"(, "requests_per_minute": 2)"), Entry("b", "sk-2")});
  Open();
  const ApiKey::Ptr key = Key("sk-1");
  EXPECT_TRUE(key->StartRequest().status.ok());
  EXPECT_TRUE(key->CountRequest().status.ok());
  const Verdict third = key->StartRequest();
  EXPECT_EQ(third.status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(third.status.message(), "API key a has reached its limit: 2 requests a minute; retry in 30 s");
  EXPECT_EQ(third.retry_after_seconds, 30);
  EXPECT_TRUE(Key("sk-2")->StartRequest().status.ok());  // each has its own
  clock_.Advance(30);
  EXPECT_TRUE(key->StartRequest().status.ok());
  EXPECT_FALSE(key->StartRequest().status.ok());
  EXPECT_EQ(Count("salamander_router_key_limited_total", {{"key", "a"}, {"limit", "requests"}}), 2);
}

TEST_F(ApiKeysTest, ConcurrentRequests) {
  Write({Entry("a", "sk-1", R"(, "concurrent_requests": 2)")});
  Open();
  const ApiKey::Ptr key = Key("sk-1");
  EXPECT_TRUE(key->StartRequest().status.ok());
  EXPECT_TRUE(key->StartRequest().status.ok());
  const Verdict third = key->StartRequest();
  EXPECT_EQ(third.status.message(), "API key a has reached its limit: 2 requests at once; retry in 1 s");
  EXPECT_EQ(third.retry_after_seconds, 1);
  key->EndRequest(absl::StatusCode::kCancelled, 0, 0, 0);
  EXPECT_TRUE(key->StartRequest().status.ok());
  EXPECT_FALSE(key->StartRequest().status.ok());
  EXPECT_EQ(Count("salamander_router_key_limited_total", {{"key", "a"}, {"limit", "concurrent"}}), 2);
  EXPECT_EQ(Count("salamander_router_key_requests_total", {{"key", "a"}, {"outcome", "CANCELLED"}}), 1);
}

TEST_F(ApiKeysTest, TokensAMinuteAndWhatIsNotUsedComesBack) {
  Write({Entry("a", "sk-1", R"(, "tokens_per_minute": 600)")});
  Open();
  const ApiKey::Ptr key = Key("sk-1");
  ASSERT_TRUE(key->StartRequest().status.ok());
  EXPECT_TRUE(key->TakeTokens(500).status.ok());
  const Verdict more = key->TakeTokens(200);
  EXPECT_EQ(more.status.message(),
            "API key a has reached its limit: 600 tokens a minute, this request may use 200; retry in 10 s");
  key->EndRequest(absl::StatusCode::kOk, 500, 300, 50);
  EXPECT_TRUE(key->TakeTokens(250).status.ok());
  EXPECT_FALSE(key->TakeTokens(1).status.ok());
  EXPECT_EQ(Count("salamander_router_key_tokens_total", {{"key", "a"}, {"kind", "prompt"}}), 300);
  EXPECT_EQ(Count("salamander_router_key_tokens_total", {{"key", "a"}, {"kind", "completion"}}), 50);
  EXPECT_EQ(Count("salamander_router_key_limited_total", {{"key", "a"}, {"limit", "tokens"}}), 2);
}

TEST_F(ApiKeysTest, ReloadTakesUpChangesAndForgetsNothingThatWasUsed) {
  Write({Entry("a", "sk-1", R"(, "requests_per_minute": 60)"), Entry("b", "sk-2")});
  Open();
  const ApiKey::Ptr a = Key("sk-1"), b = Key("sk-2");
  for (int i = 0; i < 60; ++i) ASSERT_TRUE(a->CountRequest().status.ok());
  keys_->Reload();  // nothing changed
  EXPECT_EQ(Count("salamander_router_key_reloads_total", {{"outcome", "ok"}}), 0);

  // a has another key and more requests, b is gone, c is new.
  Write({Entry("a", "sk-9", R"(, "requests_per_minute": 61)"), Entry("c", "sk-3")});
  keys_->Reload();
  EXPECT_EQ(Count("salamander_router_key_reloads_total", {{"outcome", "ok"}}), 1);
  EXPECT_FALSE(keys_->Authenticate("Bearer sk-1").ok());
  EXPECT_FALSE(keys_->Authenticate("Bearer sk-2").ok());
  EXPECT_EQ(Key("sk-3")->name(), "c");
  EXPECT_EQ(Key("sk-9"), a);
  EXPECT_TRUE(a->CountRequest().status.ok());
  EXPECT_FALSE(a->CountRequest().status.ok());
  b->EndRequest(absl::StatusCode::kOk, 0, 1, 1);  // still running requests end as ever
}

TEST_F(ApiKeysTest, BrokenFilesKeepTheOldKeys) {
  Write({Entry("a", "sk-1")});
  Open();
  ::testing::internal::CaptureStderr();
  folder_.Write("keys", R"({"keys": [{"name": "a")");
  keys_->Reload();
  keys_->Reload();  // told once
  EXPECT_TRUE(keys_->Authenticate("Bearer sk-1").ok());
  std::filesystem::remove(folder_.file("keys"));
  keys_->Reload();
  keys_->Reload();
  EXPECT_TRUE(keys_->Authenticate("Bearer sk-1").ok());
  const std::string log = ::testing::internal::GetCapturedStderr();
  EXPECT_THAT(log, HasSubstr("keys: the API keys stay as they were: is not JSON"));
  EXPECT_THAT(log, HasSubstr("the API keys stay as they were: cannot read"));
  EXPECT_EQ(Count("salamander_router_key_reloads_total", {{"outcome", "failed"}}), 2);
  Write({Entry("b", "sk-2")});
  keys_->Reload();
  EXPECT_TRUE(keys_->Authenticate("Bearer sk-2").ok());

  folder_.Write("keys", "{}");
  EXPECT_EQ(ApiKeys::Open(folder_.file("keys"), &clock_, &metrics_).status().message(),
            folder_.file("keys") + ": keys must be a list");
}

}  // namespace
}  // namespace salamander::router
