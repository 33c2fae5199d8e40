#include "router/active_requests.h"

#include <vector>

#include "router/request.h"

namespace salamander::router {

void ActiveRequests::Add(RequestId id, const std::weak_ptr<Request>& request) {
  std::lock_guard lock(mutex_);
  requests_[id] = request;
}

void ActiveRequests::Remove(RequestId id) {
  std::lock_guard lock(mutex_);
  requests_.erase(id);
  // Under the lock: the waiter may destroy this object as soon as it has it.
  changed_.notify_all();
}

void ActiveRequests::ForEach(const std::function<void(Request&)>& visit) const {
  std::vector<std::shared_ptr<Request>> alive;
  {
    std::lock_guard lock(mutex_);
    for (const auto& [id, request] : requests_) alive.push_back(request.lock());
  }
  for (const std::shared_ptr<Request>& request : alive) {
    if (request != nullptr) visit(*request);
  }
}

std::shared_ptr<void> ActiveRequests::Token() {
  {
    std::lock_guard lock(mutex_);
    ++tokens_;
  }
  return std::shared_ptr<void>(this, [](void* self) {
    auto* requests = static_cast<ActiveRequests*>(self);
    std::lock_guard lock(requests->mutex_);
    --requests->tokens_;
    requests->changed_.notify_all();
  });
}

bool ActiveRequests::WaitForRequests(double seconds) {
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, std::chrono::duration<double>(seconds), [this] { return requests_.empty(); });
}

void ActiveRequests::WaitForTokens() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return tokens_ == 0; });
}

}  // namespace salamander::router
