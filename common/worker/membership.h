// A worker's registration, in a form that any thread may ask for a beat at any time, also while it begins or ends.
#ifndef SALAMANDER_COMMON_WORKER_MEMBERSHIP_H_
#define SALAMANDER_COMMON_WORKER_MEMBERSHIP_H_

#include <memory>
#include <mutex>
#include <utility>

#include "common/service/registration.h"

namespace salamander::worker {

class Membership {
 public:
  void Join(service::RegistrationOptions options) {
    std::lock_guard lock(mutex_);
    registration_ = std::make_unique<service::Registration>(std::move(options));
  }

  // Routers see the stream end at once. Waits for callbacks that run; so not from one of them.
  void Leave() {
    std::unique_ptr<service::Registration> leaving;
    std::lock_guard lock(mutex_);
    leaving.swap(registration_);
  }

  void Beat() {
    std::lock_guard lock(mutex_);
    if (registration_ != nullptr) registration_->Beat();
  }

 private:
  std::mutex mutex_;
  std::unique_ptr<service::Registration> registration_;
};

}  // namespace salamander::worker

#endif  // SALAMANDER_COMMON_WORKER_MEMBERSHIP_H_
