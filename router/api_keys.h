// Who may send requests, and how many: API keys, each with its limits, from a file that may change at any time.
//
//   ASSIGN_OR_RETURN(auto keys, ApiKeys::Open(path, clock, metrics));
//   ASSIGN_OR_RETURN(const ApiKey::Ptr key, keys->Authenticate(authorization));
//   if (Verdict verdict = key->StartRequest(); !verdict.status.ok()) …      // RESOURCE_EXHAUSTED
//   …  key->TakeTokens(prompt + max_tokens) …
//   key->EndRequest(status, prompt, completion);
#ifndef SALAMANDER_ROUTER_API_KEYS_H_
#define SALAMANDER_ROUTER_API_KEYS_H_

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/clock.h"
#include "common/base/limited_log.h"
#include "common/service/metrics.h"
#include "router/api_key_file.h"
#include "router/token_bucket.h"

namespace salamander::router {

// OK, or RESOURCE_EXHAUSTED naming the key and its limit, and when to come again.
struct Verdict {
  absl::Status status;
  double retry_after_seconds = 0;
};

// One key's name, limits, and what of them is used. Requests hold it; it may no longer be in the file by then. Any
// thread.
class ApiKey {
 public:
  using Ptr = std::shared_ptr<ApiKey>;
  ApiKey(const ApiKeyEntry& entry, const Clock* clock, service::Metrics* metrics);

  const std::string& name() const { return name_; }
  // Takes one of the concurrent requests and one of the minute's. Every OK needs an EndRequest.
  Verdict StartRequest();
  // Counts one of the minute's requests; for calls that are over at once.
  Verdict CountRequest();
  // Once per request, when its length is known: sets aside all tokens it may use.
  Verdict TakeTokens(int64_t tokens);
  // Of `taken`, what the request did not use is given back.
  void EndRequest(absl::StatusCode outcome, int64_t taken, int64_t prompt_tokens, int64_t completion_tokens);
  void SetLimits(const ApiKeyLimits& limits);

 private:
  struct Reached {
    const char* limit;  // requests, tokens or concurrent
    std::string what;
    double wait;  // seconds
  };
  // Under the lock: takes `cost`, or says why not.
  std::optional<Reached> Take(std::optional<TokenBucket>& bucket, const char* limit, double cost);
  // Not under it: counts and logs refusals.
  Verdict Decide(const std::optional<Reached>& reached);
  prometheus::Counter& LimitedCounter(const char* limit);
  prometheus::Counter& RequestCounter(absl::StatusCode outcome);
  prometheus::Counter& TokenCounter(const char* kind);

  const std::string name_;
  const Clock* const clock_;
  service::Metrics* const metrics_;
  LimitedLog log_;

  std::mutex mutex_;
  std::optional<TokenBucket> requests_, tokens_;
  std::optional<int64_t> concurrent_limit_;
  int64_t running_ = 0;
};

class ApiKeys {
 public:
  // An error names the file. Clock and metrics outlive it.
  static absl::StatusOr<std::unique_ptr<ApiKeys>> Open(const std::string& path, const Clock* clock,
                                                       service::Metrics* metrics);

  // By the value of the `authorization` metadata. UNAUTHENTICATED if that is not "Bearer KEY" with a known key;
  // counted.
  absl::StatusOr<ApiKey::Ptr> Authenticate(const std::string& authorization);
  // Looks whether the file has changed. A new one that is broken changes nothing; it is logged and counted, once.
  void Reload();

 private:
  ApiKeys(std::string path, const Clock* clock, service::Metrics* metrics);
  absl::Status Refused(const char* reason, const std::string& message);
  prometheus::Counter& RefusedCounter(const char* reason);
  prometheus::Counter& ReloadCounter(bool ok);
  absl::Status Load(const std::string& content);

  const std::string path_;
  const Clock* const clock_;
  service::Metrics* const metrics_;
  LimitedLog log_;
  std::string content_;  // that was looked at last; one thread at a time reloads

  std::mutex mutex_;
  std::map<std::string, ApiKey::Ptr> by_hash_;
  std::map<std::string, ApiKey::Ptr>
      by_name_;  // also those that were in the file once: what they used is not forgotten
};

}  // namespace salamander::router

#endif  // SALAMANDER_ROUTER_API_KEYS_H_
