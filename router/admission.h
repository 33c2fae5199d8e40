// The bounded queue in front of the workers: who goes next, and when there is room.
//
// Order is by priority, then arrival; the first blocks those behind it, so that a long request is not overtaken for
// ever by short ones. An admitted request that a worker had no memory for after all returns to its place.
//
// Any thread. `place` and the entries' callbacks run under the queue's lock: they must not call back, only post.
#ifndef SALAMANDER_ROUTER_ADMISSION_H_
#define SALAMANDER_ROUTER_ADMISSION_H_

#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <set>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "router/placement.h"

namespace salamander::router {

class Admission {
 public:
  struct Options {
    int64_t queue_limit = 0;  // waiting
    int64_t max_running = 0;  // admitted and not ended
  };
  // RESOURCE_EXHAUSTED: not now; any other error is final for the request.
  using Place = std::function<absl::StatusOr<Placement>(const Demand&)>;
  // The request left the queue, with workers or with an error.
  using OnLeave = std::function<void(absl::StatusOr<Placement>)>;
  // Of one request from Enqueue to Leave; grows with arrival.
  using Ticket = int64_t;

  Admission(Options options, Place place) : options_(options), place_(std::move(place)) {}

  // RESOURCE_EXHAUSTED naming the limit if the request would have to wait and the queue is full.
  absl::StatusOr<Ticket> Enqueue(int priority, const Demand& demand, OnLeave on_leave);
  // An admitted request could not get its reservations: it waits again, at its old place. Nobody is admitted until
  // Wake, since nothing has changed that would make it succeed.
  void Requeue(Ticket ticket);
  // The request ended, wherever it is. Once per ticket; others may go now.
  void Leave(Ticket ticket);
  // Memory may have become free, or workers come or gone.
  void Wake();

  int64_t queue_limit() const { return options_.queue_limit; }
  int64_t queued() const;
  int64_t running() const;
  // Prompt tokens of the requests that wait in the queue.
  int64_t queued_tokens() const;

 private:
  using Position = std::pair<int, Ticket>;  // (-priority, ticket)
  struct Entry {
    Position position;
    Demand demand;
    OnLeave on_leave;
  };

  // Under the lock.
  void AdmitWhilePossible();

  const Options options_;
  const Place place_;
  mutable std::mutex mutex_;
  Ticket next_ticket_ = 0;
  std::map<Ticket, Entry> entries_;
  std::set<Position> queue_;  // the rest of entries_ is running
  int64_t queued_tokens_ = 0;
  bool blocked_ = false;
};

// RESOURCE_EXHAUSTED if a request with so many seconds left cannot be prefilled in time behind `tokens_ahead` tokens at
// the measured rate. With an unknown rate or nothing ahead it may always try: a rate measured on other prompts must not
// keep an idle cluster from work.
absl::Status CheckDeadline(double seconds_left, int64_t prompt_tokens, int64_t tokens_ahead, double tokens_per_second);

// RESOURCE_EXHAUSTED if `tokens_ahead` take longer than `limit_seconds` at the measured rate; 0: no limit. With an
// unknown rate as above.
absl::Status CheckWait(int64_t tokens_ahead, double tokens_per_second, double limit_seconds);

// When a refused client should come back: after the work that waits, within [0.2, 30] seconds.
double RetryAfterSeconds(int64_t tokens_ahead, double tokens_per_second);

}  // namespace salamander::router

#endif  // SALAMANDER_ROUTER_ADMISSION_H_
