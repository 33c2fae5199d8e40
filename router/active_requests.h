// All requests that exist, for those who have something to tell each of them, and for a router that waits for their
// end.
#ifndef SALAMANDER_ROUTER_ACTIVE_REQUESTS_H_
#define SALAMANDER_ROUTER_ACTIVE_REQUESTS_H_

#include <chrono>
#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>

#include "common/base/ids.h"

namespace salamander::router {

class Request;

// Any thread. Outlives the requests and all tokens.
class ActiveRequests {
 public:
  void Add(RequestId id, const std::weak_ptr<Request>& request);
  // From the request's destructor.
  void Remove(RequestId id);
  // Calls `visit` for each, without a lock held.
  void ForEach(const std::function<void(Request&)>& visit) const;

  // Held by everything that will still call into the router: requests, legs and calls in flight.
  std::shared_ptr<void> Token();

  // True once no request exists; false after `seconds`.
  bool WaitForRequests(double seconds);
  // Once no token exists. Calls in flight have deadlines, so this ends.
  void WaitForTokens();

 private:
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::map<RequestId, std::weak_ptr<Request>> requests_;
  int tokens_ = 0;
};

}  // namespace salamander::router

#endif  // SALAMANDER_ROUTER_ACTIVE_REQUESTS_H_
