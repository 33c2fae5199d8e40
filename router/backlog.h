// The prefill work of this router's requests from their acceptance on, in the order in which workers do it: what a new
// request would have to wait for.
//
// An estimate: workers go by the moment they hear of a request, a span that runs is not given up for a better one, and
// other routers' requests are not in it.
#ifndef SALAMANDER_ROUTER_BACKLOG_H_
#define SALAMANDER_ROUTER_BACKLOG_H_

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <tuple>

#include "common/base/clock.h"

namespace salamander::router {

// Any thread.
class Backlog {
 private:
  using Order = std::tuple<int, double, uint64_t>;  // -priority, virtual deadline, arrival
  using Work = std::map<Order, int64_t>;            // tokens to do

 public:
  explicit Backlog(const Clock* clock) : clock_(clock) {}

  // One request's work; what is left of it goes when this is destroyed, which the backlog outlives. One thread at a
  // time.
  class Part {
   public:
    Part(Backlog* backlog, Work::iterator work) : backlog_(backlog), work_(work) {}
    ~Part();
    Part(const Part&) = delete;
    Part& operator=(const Part&) = delete;
    void FinishTokens(int64_t tokens);

   private:
    Backlog* const backlog_;
    const Work::iterator work_;
  };
  // Of a prompt that comes now.
  std::unique_ptr<Part> Add(int priority, int64_t prompt_tokens);
  // What workers would do before such a prompt, if it came now.
  int64_t TokensAhead(int priority, int64_t prompt_tokens) const;

 private:
  const Clock* const clock_;
  mutable std::mutex mutex_;
  Work work_;
  uint64_t arrivals_ = 0;
};

}  // namespace salamander::router

#endif  // SALAMANDER_ROUTER_BACKLOG_H_
