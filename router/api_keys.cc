#include "router/api_keys.h"

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/base/log.h"
#include "common/base/status_macros.h"
#include "common/service/secret_file.h"
#include "router/router_metrics.h"

namespace salamander::router {
namespace {

constexpr char kScheme[] = "Bearer ";
// Nothing tells when another request of the key ends.
constexpr double kConcurrentRetrySeconds = 1;
constexpr double kLeastRetrySeconds = 0.1;

void SetRate(std::optional<TokenBucket>& bucket, const std::optional<double>& per_minute, double now) {
  if (!per_minute.has_value()) {
    bucket.reset();
  } else if (bucket.has_value()) {
    bucket->SetRate(*per_minute, now);
  } else {
    bucket.emplace(*per_minute, now);
  }
}

}  // namespace

ApiKey::ApiKey(const ApiKeyEntry& entry, const Clock* clock, service::Metrics* metrics)
    : name_(entry.name), clock_(clock), metrics_(metrics) {
  SetLimits(entry.limits);
  for (const char* limit : {"requests", "tokens", "concurrent"}) LimitedCounter(limit);
  for (const absl::StatusCode outcome : kOutcomes) RequestCounter(outcome);
  for (const char* kind : {"prompt", "completion"}) TokenCounter(kind);
}

prometheus::Counter& ApiKey::LimitedCounter(const char* limit) {
  return metrics_->Counter("salamander_router_key_limited_total",
                           "Requests refused because their API key's limit was reached.",
                           {{"key", name_}, {"limit", limit}});
}

prometheus::Counter& ApiKey::RequestCounter(absl::StatusCode outcome) {
  return metrics_->Counter("salamander_router_key_requests_total", "Requests by API key and gRPC status.",
                           {{"key", name_}, {"outcome", OutcomeName(outcome)}});
}

prometheus::Counter& ApiKey::TokenCounter(const char* kind) {
  return metrics_->Counter("salamander_router_key_tokens_total",
                           "Tokens of prompts that were run and of answers, by API key.",
                           {{"key", name_}, {"kind", kind}});
}

void ApiKey::SetLimits(const ApiKeyLimits& limits) {
  std::lock_guard lock(mutex_);
  const double now = clock_->Now();
  SetRate(requests_, limits.requests_per_minute, now);
  SetRate(tokens_, limits.tokens_per_minute, now);
  concurrent_limit_ = limits.concurrent_requests;
}

std::optional<ApiKey::Reached> ApiKey::Take(std::optional<TokenBucket>& bucket, const char* limit, double cost) {
  if (!bucket.has_value()) return std::nullopt;
  const double now = clock_->Now(), wait = bucket->Wait(cost, now);
  if (wait > 0) return Reached{limit, absl::StrFormat("%g %s a minute", bucket->per_minute(), limit), wait};
  bucket->Take(cost, now);
  return std::nullopt;
}

Verdict ApiKey::StartRequest() {
  std::optional<Reached> reached;
  {
    std::lock_guard lock(mutex_);
    if (concurrent_limit_.has_value() && running_ >= *concurrent_limit_) {
      reached = {"concurrent", absl::StrCat(*concurrent_limit_, " requests at once"), kConcurrentRetrySeconds};
    } else {
      reached = Take(requests_, "requests", 1);
    }
    running_ += !reached.has_value();
  }
  return Decide(reached);
}

Verdict ApiKey::CountRequest() {
  std::optional<Reached> reached;
  {
    std::lock_guard lock(mutex_);
    reached = Take(requests_, "requests", 1);
  }
  return Decide(reached);
}

Verdict ApiKey::TakeTokens(int64_t tokens) {
  std::optional<Reached> reached;
  {
    std::lock_guard lock(mutex_);
    reached = Take(tokens_, "tokens", static_cast<double>(tokens));
  }
  if (reached.has_value()) absl::StrAppend(&reached->what, ", this request may use ", tokens);
  return Decide(reached);
}

Verdict ApiKey::Decide(const std::optional<Reached>& reached) {
  if (!reached.has_value()) return {};
  const double seconds = std::max(reached->wait, kLeastRetrySeconds);
  LimitedCounter(reached->limit).Increment();
  const std::string message = absl::StrCat("API key ", name_, " has reached its limit: ", reached->what);
  log_.Write(LogLevel::kInfo, message);
  return {absl::ResourceExhaustedError(absl::StrCat(message, "; retry in ", absl::StrFormat("%.3g", seconds), " s")),
          seconds};
}

void ApiKey::EndRequest(absl::StatusCode outcome, int64_t taken, int64_t prompt_tokens, int64_t completion_tokens) {
  {
    std::lock_guard lock(mutex_);
    --running_;
    const int64_t unused = taken - prompt_tokens - completion_tokens;
    if (tokens_.has_value() && taken > 0) tokens_->Take(-static_cast<double>(unused), clock_->Now());
  }
  RequestCounter(outcome).Increment();
  TokenCounter("prompt").Increment(static_cast<double>(prompt_tokens));
  TokenCounter("completion").Increment(static_cast<double>(completion_tokens));
}

ApiKeys::ApiKeys(std::string path, const Clock* clock, service::Metrics* metrics)
    : path_(std::move(path)), clock_(clock), metrics_(metrics) {
  // There from the start, for alerts.
  for (const char* reason : {"none", "malformed", "unknown"}) RefusedCounter(reason);
  for (const bool ok : {true, false}) ReloadCounter(ok);
}

prometheus::Counter& ApiKeys::RefusedCounter(const char* reason) {
  return metrics_->Counter("salamander_router_unauthenticated_total",
                           "Clients' calls refused for want of a known API key.", {{"reason", reason}});
}

prometheus::Counter& ApiKeys::ReloadCounter(bool ok) {
  return metrics_->Counter("salamander_router_key_reloads_total",
                           "Changes of the API keys' file that were taken up, or were not.",
                           {{"outcome", ok ? "ok" : "failed"}});
}

absl::StatusOr<std::unique_ptr<ApiKeys>> ApiKeys::Open(const std::string& path, const Clock* clock,
                                                       service::Metrics* metrics) {
  std::unique_ptr<ApiKeys> keys(new ApiKeys(path, clock, metrics));
  ASSIGN_OR_RETURN(keys->content_, service::ReadSmallFile(path));
  if (absl::Status loaded = keys->Load(keys->content_); !loaded.ok()) return Annotate(loaded, path);
  return keys;
}

absl::Status ApiKeys::Load(const std::string& content) {
  ASSIGN_OR_RETURN(const std::vector<ApiKeyEntry> entries, ParseApiKeys(content));
  std::lock_guard lock(mutex_);
  by_hash_.clear();
  for (const ApiKeyEntry& entry : entries) {
    ApiKey::Ptr& key = by_name_[entry.name];
    if (key == nullptr) {
      key = std::make_shared<ApiKey>(entry, clock_, metrics_);
    } else {
      key->SetLimits(entry.limits);
    }
    by_hash_[entry.sha256] = key;
  }
  return absl::OkStatus();
}

void ApiKeys::Reload() {
  absl::StatusOr<std::string> content = service::ReadSmallFile(path_);
  // What cannot be read is looked at like content of its own, to be told of once.
  std::string seen = content.ok() ? *content : content.status().ToString();
  if (seen == content_) return;
  content_ = std::move(seen);
  const absl::Status loaded = content.ok() ? Load(*content) : content.status();
  ReloadCounter(loaded.ok()).Increment();
  if (loaded.ok()) {
    Log(LogLevel::kInfo, absl::StrCat(path_, ": API keys reloaded"));
  } else {
    Log(LogLevel::kError, absl::StrCat(path_, ": the API keys stay as they were: ", loaded.message()));
  }
}

absl::StatusOr<ApiKey::Ptr> ApiKeys::Authenticate(const std::string& authorization) {
  if (authorization.empty()) {
    return Refused("none", "no API key: send the metadata `authorization: Bearer KEY`");
  }
  if (!absl::StartsWithIgnoreCase(authorization, kScheme)) {
    return Refused("malformed", "the metadata `authorization` must be `Bearer KEY`");
  }
  // The time that a look-up by hash takes tells nothing of any key.
  const std::string hash = Sha256(authorization.substr(sizeof(kScheme) - 1));
  {
    std::lock_guard lock(mutex_);
    if (const auto found = by_hash_.find(hash); found != by_hash_.end()) return found->second;
  }
  return Refused("unknown", "the API key is not known here");
}

absl::Status ApiKeys::Refused(const char* reason, const std::string& message) {
  RefusedCounter(reason).Increment();
  log_.Write(LogLevel::kInfo, absl::StrCat("a client's call is refused: ", message));
  return absl::UnauthenticatedError(message);
}

}  // namespace salamander::router
