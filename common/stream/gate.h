// Lets an owner close something that other threads may be using: passes taken before Close are waited for, later ones
// are not given.
#ifndef SALAMANDER_COMMON_STREAM_GATE_H_
#define SALAMANDER_COMMON_STREAM_GATE_H_

#include <condition_variable>
#include <cstdint>
#include <mutex>

namespace salamander::stream {

class Gate {
 public:
  class Pass {
   public:
    explicit Pass(Gate& gate) : gate_(gate.Enter() ? &gate : nullptr) {}
    ~Pass() {
      if (gate_ != nullptr) gate_->Leave();
    }
    Pass(const Pass&) = delete;
    Pass& operator=(const Pass&) = delete;
    // False: the gate was closed, keep out.
    explicit operator bool() const { return gate_ != nullptr; }

   private:
    Gate* const gate_;
  };

  // Blocks until all passes are back. Not by a thread that holds one.
  void Close() {
    std::unique_lock lock(mutex_);
    closed_ = true;
    empty_.wait(lock, [this] { return inside_ == 0; });
  }

 private:
  bool Enter() {
    std::lock_guard lock(mutex_);
    if (!closed_) ++inside_;
    return !closed_;
  }
  void Leave() {
    std::lock_guard lock(mutex_);
    if (--inside_ == 0) empty_.notify_all();
  }

  std::mutex mutex_;
  std::condition_variable empty_;
  int64_t inside_ = 0;
  bool closed_ = false;
};

}  // namespace salamander::stream

#endif  // SALAMANDER_COMMON_STREAM_GATE_H_
