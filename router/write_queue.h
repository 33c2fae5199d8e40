// What waits to be written on one gRPC stream, which takes one message at a time.
#ifndef SALAMANDER_ROUTER_WRITE_QUEUE_H_
#define SALAMANDER_ROUTER_WRITE_QUEUE_H_

#include <cstddef>
#include <deque>
#include <utility>

namespace salamander::router {

// No lock of its own: used under its stream's. A write is in flight whenever the queue is not empty.
template <typename Message>
class WriteQueue {
 public:
  // Returns what to start writing now, or null while another write is in flight. The pointer stays until Pop.
  const Message* Push(Message message) {
    messages_.push_back(std::move(message));
    return messages_.size() == 1 ? &messages_.front() : nullptr;
  }
  // The write in flight is done. Returns what to write next, or null.
  const Message* Pop() {
    messages_.pop_front();
    return messages_.empty() ? nullptr : &messages_.front();
  }
  // Forgets what waits behind the write in flight.
  void DropWaiting() {
    if (messages_.size() > 1) messages_.resize(1);
  }
  bool empty() const { return messages_.empty(); }
  // The write in flight included.
  size_t size() const { return messages_.size(); }

 private:
  std::deque<Message> messages_;  // push_back and pop_front leave references to the others valid
};

}  // namespace salamander::router

#endif  // SALAMANDER_ROUTER_WRITE_QUEUE_H_
