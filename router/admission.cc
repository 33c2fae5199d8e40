#include "router/admission.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace salamander::router {

absl::StatusOr<Admission::Ticket> Admission::Enqueue(int priority, const Demand& demand, OnLeave on_leave) {
  std::lock_guard lock(mutex_);
  const Ticket ticket = next_ticket_++;
  const Position position(-priority, ticket);
  entries_[ticket] = {position, demand, std::move(on_leave)};
  queue_.insert(position);
  queued_tokens_ += demand.prompt_tokens;
  if (!blocked_) AdmitWhilePossible();
  if (static_cast<int64_t>(queue_.size()) > options_.queue_limit && queue_.erase(position) > 0) {
    queued_tokens_ -= demand.prompt_tokens;
    entries_.erase(ticket);
    return absl::ResourceExhaustedError(
        absl::StrCat("the queue is full: ", queue_.size(), " requests wait, the limit is ", options_.queue_limit));
  }
  return ticket;
}

void Admission::Requeue(Ticket ticket) {
  std::lock_guard lock(mutex_);
  const Entry& entry = entries_.at(ticket);
  queue_.insert(entry.position);
  queued_tokens_ += entry.demand.prompt_tokens;
  blocked_ = true;
}

void Admission::Leave(Ticket ticket) {
  std::lock_guard lock(mutex_);
  const auto found = entries_.find(ticket);
  if (queue_.erase(found->second.position) > 0) queued_tokens_ -= found->second.demand.prompt_tokens;
  entries_.erase(found);
  blocked_ = false;
  AdmitWhilePossible();
}

void Admission::Wake() {
  std::lock_guard lock(mutex_);
  blocked_ = false;
  AdmitWhilePossible();
}

void Admission::AdmitWhilePossible() {
  while (!queue_.empty() && static_cast<int64_t>(entries_.size() - queue_.size()) < options_.max_running) {
    const auto first = queue_.begin();
    Entry& entry = entries_.at(first->second);
    absl::StatusOr<Placement> placement = place_(entry.demand);
    if (placement.status().code() == absl::StatusCode::kResourceExhausted) return;
    queued_tokens_ -= entry.demand.prompt_tokens;
    queue_.erase(first);
    entry.on_leave(std::move(placement));
  }
}

int64_t Admission::queued() const {
  std::lock_guard lock(mutex_);
  return queue_.size();
}

int64_t Admission::running() const {
  std::lock_guard lock(mutex_);
  return entries_.size() - queue_.size();
}

int64_t Admission::queued_tokens() const {
  std::lock_guard lock(mutex_);
  return queued_tokens_;
}

absl::Status CheckDeadline(double seconds_left, int64_t prompt_tokens, int64_t tokens_ahead, double tokens_per_second) {
  if (tokens_per_second <= 0 || tokens_ahead <= 0) return absl::OkStatus();
  const double needed = (prompt_tokens + tokens_ahead) / tokens_per_second;
  if (needed <= seconds_left) return absl::OkStatus();
  return absl::ResourceExhaustedError(absl::StrCat(
      "the deadline cannot be met: ", tokens_ahead, " tokens are ahead of a prompt of ", prompt_tokens, ", at ",
      tokens_per_second, " tokens/s that takes ", needed, " s, the deadline is in ", seconds_left, " s"));
}

absl::Status CheckWait(int64_t tokens_ahead, double tokens_per_second, double limit_seconds) {
  if (limit_seconds <= 0 || tokens_per_second <= 0) return absl::OkStatus();
  const double wait = tokens_ahead / tokens_per_second;
  if (wait <= limit_seconds) return absl::OkStatus();
  return absl::ResourceExhaustedError(absl::StrCat("the wait is too long: ", tokens_ahead, " tokens are ahead, at ",
                                                   tokens_per_second, " tokens/s that takes ", wait,
                                                   " s, the limit is ", limit_seconds, " s"));
}

double RetryAfterSeconds(int64_t tokens_ahead, double tokens_per_second) {
  constexpr double kUnknown = 1, kLeast = 0.2, kMost = 30;
  if (tokens_per_second <= 0) return kUnknown;
  return std::clamp(tokens_ahead / tokens_per_second, kLeast, kMost);
}

}  // namespace salamander::router
