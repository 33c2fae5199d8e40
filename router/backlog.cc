#include "router/backlog.h"

#include <limits>

#include "common/base/virtual_deadline.h"

namespace salamander::router {

std::unique_ptr<Backlog::Part> Backlog::Add(int priority, int64_t prompt_tokens) {
  std::lock_guard lock(mutex_);
  const Order order(-priority, VirtualDeadline(clock_->Now(), prompt_tokens), arrivals_++);
  return std::make_unique<Part>(this, work_.emplace(order, prompt_tokens).first);
}

int64_t Backlog::TokensAhead(int priority, int64_t prompt_tokens) const {
  std::lock_guard lock(mutex_);
  const Order order(-priority, VirtualDeadline(clock_->Now(), prompt_tokens), std::numeric_limits<uint64_t>::max());
  int64_t tokens = 0;
  for (auto work = work_.begin(); work != work_.end() && work->first < order; ++work) tokens += work->second;
  return tokens;
}

Backlog::Part::~Part() {
  std::lock_guard lock(backlog_->mutex_);
  backlog_->work_.erase(work_);
}

void Backlog::Part::FinishTokens(int64_t tokens) {
  std::lock_guard lock(backlog_->mutex_);
  work_->second -= tokens;
}

}  // namespace salamander::router
